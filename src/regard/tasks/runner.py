"""Runner: what `regard.load` returns, a model with its tokenizer and the methods of its job."""

from abc import ABC, abstractmethod
from pathlib import Path
from typing import Any, ClassVar

from torch import nn


class Runner(ABC):
    """A trained or published model that does a job for a user.

    A runner is made of a module, its tokenizer (None if the folder has none) and its configuration. Verbs of the
    command line call its methods: the one that is named as the verb, `see(text, ...)` and `evaluate(records, ...)`,
    whose result has `table()` and `to_plain()`.
    """

    job: ClassVar[str]  # its name in `tasks.registry`
    module: nn.Module
    config: dict[str, Any]

    @abstractmethod
    def save(self, folder: str | Path, *, dtype: str = "float32") -> None:
        """Write it as a folder that `regard.load` reads."""

    def read_extras(self, folder: Path) -> None:  # noqa: B027 - most jobs have none
        """Read what the job keeps in a folder besides configuration, tokenizer and weights; nothing by default."""
