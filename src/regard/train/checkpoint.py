"""Checkpoints: all that a run needs to go on exactly as if it had not stopped.

    checkpoints/step-00000400/model.safetensors, optimizer.safetensors, state.json

A checkpoint is written under a temporary name and renamed when it is on the disk; `state.json` holds the digests of
the two others. The newest whose digests agree is used. Nothing random is kept: what is random in a step follows from
the seed and the step's number.
"""

import hashlib
import json
import os
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import safetensors
import safetensors.torch
import torch
from torch import Tensor, nn

from regard.errors import CheckpointError

WEIGHTS, OPTIMIZER, STATE = "model.safetensors", "optimizer.safetensors", "state.json"
PREFIX, UNFINISHED = "step-", ".writing-"


class Checkpoint(NamedTuple):
    """Where a checkpoint is, and the plain part of its state."""

    folder: Path
    state: dict[str, Any]


def write(folder: Path, module: nn.Module, optimizer: torch.optim.Optimizer, state: Mapping[str, Any]) -> None:
    """Add the checkpoint of step `state["step"]`.

    Args:
        folder: of the checkpoints, made if missing.
        module: whose state is kept.
        optimizer: whose state is kept.
        state: plain data, "step" among them.

    Raises:
        CheckpointError: a disk that is full or cannot be written; earlier checkpoints stay.
    """
    name = f"{PREFIX}{state['step']:08}"
    partial = folder / f"{UNFINISHED}{name}"
    try:
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
        digests = {
            WEIGHTS: _save(partial / WEIGHTS, dict(module.named_parameters())),
            OPTIMIZER: _save(partial / OPTIMIZER, dict(_optimizer_tensors(module, optimizer))),
        }
        _put(partial / STATE, json.dumps({**state, "digests": digests}, indent=1).encode())
        shutil.rmtree(folder / name, ignore_errors=True)
        partial.rename(folder / name)
        _sync(folder)
    except OSError as error:
        shutil.rmtree(partial, ignore_errors=True)
        raise CheckpointError(
            f"checkpoint {folder / name} cannot be written: {error.strerror or error}; earlier ones are as they were"
        ) from error


def newest(folder: Path) -> Checkpoint | None:
    """The newest checkpoint that is whole, or None."""
    return next(whole(folder), None)


def whole(folder: Path) -> Iterator[Checkpoint]:
    """The checkpoints whose files are as they were written, the newest first."""
    for path in sorted(folder.glob(f"{PREFIX}*"), reverse=True):
        try:
            state = json.loads((path / STATE).read_bytes())
            if all(_digest(path / name) == digest for name, digest in state["digests"].items()):
                yield Checkpoint(path, state)
        except (OSError, ValueError, KeyError, TypeError):
            continue  # half deleted, truncated or changed: the one before it will do


def read(checkpoint: Checkpoint, module: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    """Give a model and its optimizer the state of a checkpoint.

    Raises:
        CheckpointError: tensors of another model.
    """
    _fill(module, checkpoint.folder / WEIGHTS)
    kept = safetensors.torch.load_file(checkpoint.folder / OPTIMIZER)
    for name, parameter in module.named_parameters():
        state = {key.split("/", 1)[1]: x for key, x in kept.items() if key.split("/", 1)[0] == name}
        optimizer.state[parameter] = {key: x.to(parameter.device) for key, x in state.items()}


def average(checkpoints: list[Checkpoint], module: nn.Module) -> None:
    """Give a model the mean of the weights of some checkpoints.

    Source: Vaswani et al. 2017, arXiv 1706.03762, section 6.1.
    """
    total: dict[str, Tensor] = {}
    for checkpoint in checkpoints:
        for name, x in safetensors.torch.load_file(checkpoint.folder / WEIGHTS).items():
            total[name] = x.double() + total.get(name, 0.0)
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            parameter.copy_(total[name] / len(checkpoints))


def prune(folder: Path, keep: int, every: int) -> None:
    """Leave the newest two, the newest few of those at multiples of `every`, and nothing unfinished."""
    paths = sorted(folder.glob(f"{PREFIX}*"), reverse=True)
    regular = [path for path in paths if int(path.name.removeprefix(PREFIX)) % every == 0]
    kept = {*paths[:2], *regular[:keep]}
    for path in [*(path for path in paths if path not in kept), *folder.glob(f"{UNFINISHED}*")]:
        shutil.rmtree(path, ignore_errors=True)


def _fill(module: nn.Module, path: Path) -> None:
    found = safetensors.torch.load_file(path)
    expected = dict(module.named_parameters())
    wrong = set(expected.keys() ^ found.keys()) or {n for n, x in expected.items() if x.shape != found[n].shape}
    if wrong:
        raise CheckpointError(f"{path} is of another model: {', '.join(sorted(wrong)[:5])} differ")
    with torch.no_grad():
        for name, x in expected.items():
            x.copy_(found[name])


def _optimizer_tensors(module: nn.Module, optimizer: torch.optim.Optimizer) -> Iterator[tuple[str, Tensor]]:
    for name, parameter in module.named_parameters():
        for key, x in optimizer.state.get(parameter, {}).items():
            if isinstance(x, Tensor):
                yield f"{name}/{key}", x


def _save(path: Path, tensors: Mapping[str, Tensor]) -> str:
    content = safetensors.torch.save({name: x.detach().cpu().contiguous() for name, x in tensors.items()})
    _put(path, content)
    return hashlib.blake2b(content).hexdigest()


def _put(path: Path, content: bytes) -> None:
    with path.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "blake2b").hexdigest()


def _sync(folder: Path) -> None:
    """The names in a folder onto the disk."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
