"""Runner: a model with its tokenizer and the methods of its job, as `regard.load` returns it."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, ClassVar, TypeVar

from regard.checkpoints import folder as folders
from regard.checkpoints.hub_files import check_inside
from regard.errors import CheckpointError, ConfigError

PREPROCESSOR = "preprocessor_config.json"
Processor = TypeVar("Processor")


class Runner:
    """Trained or published model with the methods of its job.

    A runner has a module, its tokenizer (None if the folder has none) and its configuration. The verbs of the command
    line call the methods of the same names, among them `see(text, ...)` and `evaluate(records, ...)`. The result of
    `evaluate` has `table()`, `to_plain()`, `seconds` and `scores`, a named tuple of numbers with the main one first; it
    may have `parts()`: the lines and `ScoreTable`s of the table.
    """

    job: ClassVar[str]  # its name in `tasks.registry`
    tokenizer_files: ClassVar[str] = "tokenizer.json"  # one of these must be in the folder

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
                "the model's folder has no tokenizer that regard can read; expected "
                f"{self.tokenizer_files} in it. Without a tokenizer, call `.module` with token ids"
            )
        return self._tokenizer

    def __repr__(self) -> str:
        count = sum(parameter.numel() for parameter in self.module.parameters())
        return f"{type(self).__name__}({type(self.module).__name__}, {count:,} parameters)"

    def save(self, folder: str | Path, *, dtype: str = "float32") -> None:
        """Save the model in a folder that `regard.load` reads.

        Args:
            folder: folder, created if missing.
            dtype: data type of the weights on disk: float32, float16 or bfloat16.

        Raises:
            ConfigError: an unknown dtype.
            CheckpointError: weights that cannot be written in this dtype.
        """
        more = self.extra_files()
        folders.save(folder, self.module, self._tokenizer, self.config, task=self.job, dtype=dtype, more=more)

    def extra_files(self) -> Mapping[str, bytes]:
        """Further files of the job in the model's folder, by name; none by default."""
        return {}

    def read_extras(self, folder: Path) -> None:
        """Read the files of `extra_files`; none by default."""


def read_processor(folder: Path, parse: Callable[[Any], Processor], default: Processor) -> Processor:
    """Read the processor of pictures or sounds from a model's folder.

    Args:
        folder: of the model, in the hub's layout.
        parse: makes a processor from the fields of the file.
        default: processor of a folder without the file.

    Returns:
        The processor.

    Raises:
        CheckpointError: a file that cannot be read or has wrong fields.
    """
    path = folder / PREPROCESSOR
    if not path.is_file():
        return default
    try:
        return parse(folders.read_json(check_inside(folder, path)))
    except ConfigError as error:
        raise CheckpointError(f"{path}: {error}") from error
