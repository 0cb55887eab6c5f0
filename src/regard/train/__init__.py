"""Train a model on files of records: `regard.train("pairs.tsv", out="runs/en-it", minutes=30)`.

This name is a package and a function. Python sets `regard.train` to this package when a module of it is first imported,
so that a function of the same name could be lost then; calling the package itself is right in any order of imports.
"""

import os
import sys
from collections.abc import Sequence
from types import ModuleType
from typing import Any

Files = str | os.PathLike[str] | Sequence[str | os.PathLike[str]]


def train(files: Files = (), **options: Any) -> Any:
    """Train a model on records; called again with the same arguments, resume the run.

    Args:
        files: a file of pairs, or several; none where `parallel` names two.
        options: the other fields of `TrainOptions`: `out`, the run's folder; `start`, the model to fine-tune;
            `minutes`, `steps` or `epochs`; `size`, `learning_rate` and so on.

    Returns:
        The best model, as `regard.load` gives it: a `Translator`.

    Raises:
        ConfigError: options that are unknown, out of range or don't go together, or other ones than the run's folder
            was begun with.
        DataError: pairs that cannot be used.
        CheckpointError: a model to start from that cannot be read, or a disk that cannot be written.
    """
    from dataclasses import fields

    from regard.data.reader import as_files
    from regard.errors import ConfigError, nearest
    from regard.tasks.load import load
    from regard.train import run
    from regard.train.options import TrainOptions

    known = [field.name for field in fields(TrainOptions)]
    for name in options:
        if name not in known:
            raise ConfigError(f"unknown option {name!r}; {nearest(name, known)}")
    plain = {name: os.fspath(x) if isinstance(x, os.PathLike) else x for name, x in options.items()}
    if plain.get("parallel") is not None:
        plain["parallel"] = as_files(plain["parallel"])
    return load(run.train(TrainOptions(files=as_files(files), **plain)))


class _Callable(ModuleType):
    """A module that is called as its function `train`."""

    def __call__(self, files: Files = (), **options: Any) -> Any:
        return train(files, **options)


sys.modules[__name__].__class__ = _Callable
