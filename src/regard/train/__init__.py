"""Training of models on files of records: `regard.train("pairs.tsv", out="runs/en-it", minutes=30)`.

The package itself is callable: Python binds `regard.train` to this package when one of its modules is first imported,
which would replace a function of the same name.
"""

import os
import sys
from collections.abc import Sequence
from types import ModuleType
from typing import Any

Files = str | os.PathLike[str] | Sequence[str | os.PathLike[str]]


def train(files: Files = (), **options: Any) -> Any:
    """Train a model on records; a call with the same arguments resumes the run.

    Args:
        files: one or more files of records; none if `parallel` names two files.
        options: other fields of `TrainOptions`, such as `out`, the folder of the run; `start`, the model to fine-tune;
            `minutes`, `steps` or `epochs`; `size`; `learning_rate`.

    Returns:
        The runner of the best model, as `regard.load` returns it, such as a `Translator`.

    Raises:
        ConfigError: options that are unknown, out of range or exclude each other, or that differ from those the run
            was started with.
        DataError: records that cannot be used.
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
    """Module that is callable as its function `train`."""

    def __call__(self, files: Files = (), **options: Any) -> Any:
        return train(files, **options)


sys.modules[__name__].__class__ = _Callable
