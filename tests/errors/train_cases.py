"""Misuse of training: see `cases.py`."""

import errno
import os
import signal
import sys
import tempfile
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from safetensors.torch import load_file, save_file

from regard import train as train_package
from regard.checkpoints import folder as folders
from regard.errors import CheckpointError, ConfigError, DataError
from regard.train import checkpoint
from regard.train.device import pick_device
from regard.train.distributed import Group
from regard.train.lock import locked
from regard.train.options import TrainOptions
from regard.train.report import Report
from regard.train.run import _Run, train
from regard.train.trainer import Trainer
from tests.checkpoints.language_models import completer
from tests.train.made import options, pairs


def said(**changes: Any) -> Callable[[], object]:
    return lambda: TrainOptions(**{"files": ("pairs.tsv",), **changes})


def running(*patches: Any, **changes: Any) -> Callable[[], object]:
    """A run of a second, with parts of it replaced."""

    def call() -> object:
        with tempfile.TemporaryDirectory() as name, ExitStack() as stack:
            for target, attribute, replacement in patches:
                stack.enter_context(mock.patch.object(target, attribute, replacement))
            return train(options(Path(name), **changes))

    return call


def interrupted(*_: object) -> float:
    signal.raise_signal(signal.SIGINT)
    return 1.0


def terminated(*_: object) -> float:
    signal.raise_signal(signal.SIGTERM)
    return 1.0


def full(*_: object, **__: object) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def plan(content: str) -> Callable[[], object]:
    """A run in a folder with this run file."""

    def call() -> object:
        with tempfile.TemporaryDirectory() as name:
            Path(name, "run").mkdir()
            Path(name, "run", "run.json").write_text(content)
            return train(options(Path(name)))

    return call


def in_a_file() -> object:
    with tempfile.TemporaryDirectory() as name:
        Path(name, "run").write_text("a file")
        return train(options(Path(name)))


def other_checkpoint() -> object:
    module = torch.nn.Linear(2, 3)
    optimizer = torch.optim.SGD(module.parameters())
    with tempfile.TemporaryDirectory() as name:
        checkpoint.write(Path(name), module, optimizer, {"step": 1})
        found = checkpoint.newest(Path(name))
        weights = found.folder / checkpoint.WEIGHTS
        save_file({key: x for key, x in load_file(weights).items() if key != "bias"}, weights)
        return checkpoint.read(found, module, optimizer)


def unwritable() -> object:
    module = torch.nn.Linear(2, 3)
    with tempfile.TemporaryDirectory() as name, mock.patch.object(checkpoint, "_put", full):
        return checkpoint.write(Path(name), module, torch.optim.SGD(module.parameters()), {"step": 7})


def in_one_folder() -> object:
    with tempfile.TemporaryDirectory() as name:
        Path(name, "run").mkdir()
        with locked(Path(name, "run")):
            return train(options(Path(name)))


def other_pairs() -> object:
    """A run that was stopped, and goes on with other records under the same name."""
    with tempfile.TemporaryDirectory() as name:
        said = options(Path(name))
        with mock.patch.object(_Run, "_finish", return_value=None):
            train(said)
        pairs(Path(said.files[0]), rows=120)
        return train(said)


def shorter() -> object:
    with tempfile.TemporaryDirectory() as name:
        train(options(Path(name)))
        return train(options(Path(name), steps=4))


def finished_with_others() -> object:
    with tempfile.TemporaryDirectory() as name:
        given = options(Path(name))
        train(given)
        pairs(Path(given.files[0]), rows=120)
        return train(given)


def from_gpt() -> object:
    with tempfile.TemporaryDirectory() as name:
        completer().save(Path(name, "gpt"))
        changes = dict.fromkeys(("model", "model_settings", "dropout", "vocab_size")) | {
            "start": str(Path(name, "gpt"))
        }
        return train(options(Path(name), **changes))


def two_processes() -> object:
    with tempfile.TemporaryDirectory() as name:
        run = _Run(options(Path(name), files=("-",)), torch.device("cpu"), Group(0, 2), 0.0)
        return run._prepare()


def without_tensorboard() -> object:
    with tempfile.TemporaryDirectory() as name, mock.patch.dict(sys.modules, {"torch.utils.tensorboard": None}):
        return Report(Path(name), since=0, tensorboard=True)


CASES: list[tuple[str, Callable[[], object], type[BaseException], str]] = [
    ("train-nothing", said(files=()), ConfigError, "files=() and parallel=None: give one of them"),
    ("train-keyword", lambda: train_package(minute=5), ConfigError, "unknown option 'minute'; did you mean 'minutes'"),
    ("train-lengths", said(steps=3, epochs=2), ConfigError, "steps=3 and epochs=2: give one of them"),
    ("train-schedule", said(schedule="linea"), ConfigError, "unknown schedule 'linea'; did you mean 'linear'?"),
    ("train-least", said(batch_tokens=0), ConfigError, "batch_tokens=0 must be at least 1"),
    ("train-vocabulary", said(vocab_size=200), ConfigError, "vocab_size=200 must be from 300"),
    (
        "train-size",
        running(model="rnn", model_settings=None, size="base"),
        ConfigError,
        "only transformer has sizes, not rnn",
    ),
    ("train-setting", running(model_settings={"embed_dims": 3}), ConfigError, "did you mean 'embed_dim'?"),
    ("train-file", running(files=("nothing.tsv",)), DataError, "nothing.tsv"),
    (
        "train-start",
        running(start="en-it"),
        ConfigError,
        "start='en-it' has a model and a tokenizer already, which model='transformer', model_settings={'embed_dim': 16",
    ),
    ("train-out", in_a_file, ConfigError, "cannot be created or read"),
    ("train-plan", plan("{"), CheckpointError, "run.json is not JSON"),
    ("train-other-options", plan('{"options": {"seed": 3}}'), ConfigError, "seed was 3, now None"),
    ("train-shorter", shorter, ConfigError, "has taken 9 steps; the new length is 4: give a greater one"),
    ("train-finished-with-others", finished_with_others, ConfigError, "is finished, and was trained on other records"),
    ("train-start-is-out", said(start="run"), ConfigError, "start and out are both 'run'; give the new run a folder"),
    ("train-start-is-gpt", from_gpt, ConfigError, "is for another job; expected one to translate"),
    ("train-sigterm", running((Trainer, "gradients", terminated)), SystemExit, "143"),
    ("train-seed", said(seed=-1), ConfigError, "seed=-1 must be at least 0"),
    ("train-epochs", said(epochs=float("inf")), ConfigError, "epochs=inf must be above 0 and finite"),
    ("train-plan-empty", plan("[]"), CheckpointError, "run.json has no options"),
    (
        "train-model-vocabulary",
        running(model_settings={"vocabulary": 7}),
        ConfigError,
        "vocabulary=7 has an option of its own",
    ),
    ("train-no-device", lambda: pick_device("cpu:abc"), ConfigError, "device='cpu:abc' is not a device"),
    ("train-two", in_one_folder, ConfigError, "another process trains in"),
    ("train-other-pairs", other_pairs, ConfigError, "was started with other records"),
    (
        "train-gradient",
        running((torch.nn.utils, "clip_grad_norm_", lambda *_: torch.tensor(float("inf")))),
        ConfigError,
        "the gradient's norm is inf at step 1",
    ),
    (
        "train-device",
        lambda: pick_device("cuda"),
        ConfigError,
        "device='cuda' is not available: PyTorch finds no such device",
    ),
    ("train-stdin-shared", two_processes, ConfigError, "several processes cannot share standard input"),
    (
        "train-diverged",
        running((Trainer, "gradients", lambda *_: float("nan"))),
        ConfigError,
        "the loss is nan at step 1 with learning_rate=0.001",
    ),
    (
        "train-no-time",
        running((Trainer, "seconds_per_step", lambda *_: 1e6), steps=None, minutes=1.0),
        ConfigError,
        "minutes=1 leaves no time to train: a step takes 1000000.0 s",
    ),
    (
        "train-ctrl-c",
        running((Trainer, "gradients", interrupted)),
        KeyboardInterrupt,
        "stopped at step 1 of 9; the same command resumes from there",
    ),
    ("train-disk-full", running((folders, "save", full)), CheckpointError, "cannot be written: No space left"),
    ("checkpoint-disk-full", unwritable, CheckpointError, "step-00000007 cannot be written: No space left on device"),
    ("checkpoint-other", other_checkpoint, CheckpointError, "is of another model: bias"),
    ("tensorboard-missing", without_tensorboard, ConfigError, "pip install 'regard[tensorboard]'"),
]
