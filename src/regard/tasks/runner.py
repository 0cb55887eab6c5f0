"""Runner: what `regard.load` returns, a model with its tokenizer and the methods of its job."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

from regard.checkpoints import folder as folders


class Runner:
    """A trained or published model that does a job for a user.

    A runner is made of a module, its tokenizer (None if the folder has none) and its configuration. Verbs of the
    command line call its methods: the one that is named as the verb, `see(text, ...)` and `evaluate(records, ...)`,
    whose result has `table()` and `to_plain()`.
    """

    job: ClassVar[str]  # its name in `tasks.registry`

    def __init__(self, module: Any, tokenizer: Any, config: Mapping[str, Any] | None = None) -> None:
        self.module, self.tokenizer, self.config = module, tokenizer, dict(config or {})

    def __repr__(self) -> str:
        count = sum(parameter.numel() for parameter in self.module.parameters())
        return f"{type(self).__name__}({type(self.module).__name__}, {count:,} parameters)"

    def save(self, folder: str | Path, *, dtype: str = "float32") -> None:
        """Write it as a folder that `regard.load` reads.

        Args:
            folder: made if missing.
            dtype: of the weights on disk: float32, float16 or bfloat16.

        Raises:
            ConfigError: an unknown dtype.
            CheckpointError: weights that cannot be written so.
        """
        folders.save(folder, self.module, self.tokenizer, self.config, task=self.job, dtype=dtype)

    def read_extras(self, folder: Path) -> None:
        """Read what the job keeps in a folder besides configuration, tokenizer and weights; nothing by default."""
