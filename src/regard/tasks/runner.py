"""Runner: what `regard.load` returns, a model with its tokenizer and the methods of its job."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

from regard.checkpoints import folder as folders
from regard.errors import CheckpointError


class Runner:
    """A trained or published model that does a job for a user.

    A runner is made of a module, its tokenizer (None if the folder has none) and its configuration. Verbs of the
    command line call its methods: the one that is named as the verb, `see(text, ...)` and `evaluate(records, ...)`,
    whose result has `table()` and `to_plain()`.
    """

    job: ClassVar[str]  # its name in `tasks.registry`
    tokenizer_files: ClassVar[str] = "tokenizer.json"  # of which one must be in the folder

    def __init__(self, module: Any, tokenizer: Any, config: Mapping[str, Any] | None = None) -> None:
        self.module, self._tokenizer, self.config = module, tokenizer, dict(config or {})

    @property
    def tokenizer(self) -> Any:
        """The tokenizer.

        Raises:
            CheckpointError: the model's folder has none.
        """
        if self._tokenizer is None:
            raise CheckpointError(
                "the model's folder has no tokenizer that regard knows, which turns text into ids; expected "
                f"{self.tokenizer_files} in it. Without one, give token ids to `.module`"
            )
        return self._tokenizer

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
        more = self.extra_files()
        folders.save(folder, self.module, self._tokenizer, self.config, task=self.job, dtype=dtype, more=more)

    def extra_files(self) -> Mapping[str, bytes]:
        """What the job keeps in a folder besides configuration, tokenizer and weights, by name; nothing by default."""
        return {}

    def read_extras(self, folder: Path) -> None:
        """Read what `extra_files` wrote; nothing by default."""
