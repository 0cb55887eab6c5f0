"""Checkpoints: the state from which a run resumes exactly as if it had not stopped.

    checkpoints/step-00000400/model.safetensors, optimizer.safetensors, state.json

A checkpoint is written under a temporary name and renamed once it is on the disk; `state.json` has the digests of the
two other files. A run resumes from the newest checkpoint whose digests match. No random state is stored: the randomness
of a step follows from the seed and the number of the step.
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
    """Folder of a checkpoint, and the contents of its state.json."""

    folder: Path
    state: dict[str, Any]


def write(folder: Path, module: nn.Module, optimizer: torch.optim.Optimizer, state: Mapping[str, Any]) -> None:
    """Write the checkpoint of step `state["step"]`.

    Args:
        folder: folder of all checkpoints, created if missing.
        module: model to save.
        optimizer: optimizer to save.
        state: JSON data with a key "step".

    Raises:
        CheckpointError: a disk that is full or cannot be written; earlier checkpoints are not touched.
    """
    name = f"{PREFIX}{state['step']:08}"
    partial = folder / f"{UNFINISHED}{name}"
    try:
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
        digests = {
            WEIGHTS: _save(partial / WEIGHTS, _weights(module)),
            OPTIMIZER: _save(partial / OPTIMIZER, dict(_optimizer_tensors(module, optimizer))),
        }
        _put(partial / STATE, json.dumps({**state, "digests": digests}, indent=1).encode())
        shutil.rmtree(folder / name, ignore_errors=True)
        partial.rename(folder / name)
        _sync(folder)
    except OSError as error:
        shutil.rmtree(partial, ignore_errors=True)
        raise CheckpointError(
            f"checkpoint {folder / name} cannot be written: {error.strerror or error}; the earlier ones are unchanged"
        ) from error


def newest(folder: Path) -> Checkpoint | None:
    """Newest intact checkpoint, or None."""
    return next(whole(folder), None)


def whole(folder: Path) -> Iterator[Checkpoint]:
    """Intact checkpoints, whose digests match, the newest first."""
    for path in sorted(folder.glob(f"{PREFIX}*"), reverse=True):
        try:
            state = json.loads((path / STATE).read_bytes())
            if all(_digest(path / name) == digest for name, digest in state["digests"].items()):
                yield Checkpoint(path, state)
        except (OSError, ValueError, KeyError, TypeError):
            continue  # partly deleted, truncated or changed: use an earlier one


def read(checkpoint: Checkpoint, module: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    """Load a checkpoint into a model and its optimizer.

    Raises:
        CheckpointError: the checkpoint is of another model.
    """
    _fill(module, checkpoint.folder / WEIGHTS)
    tensors = safetensors.torch.load_file(checkpoint.folder / OPTIMIZER)
    for name, parameter in module.named_parameters():
        state = {key.split("/", 1)[1]: x for key, x in tensors.items() if key.split("/", 1)[0] == name}
        optimizer.state[parameter] = {key: x.to(parameter.device) for key, x in state.items()}


def average(checkpoints: list[Checkpoint], module: nn.Module) -> None:
    """Set the weights of a model to the mean of those of several checkpoints.

    Source: Vaswani et al. 2017, arXiv 1706.03762, section 6.1.
    """
    total: dict[str, Tensor] = {}
    for checkpoint in checkpoints:
        for name, x in safetensors.torch.load_file(checkpoint.folder / WEIGHTS).items():
            total[name] = x.double() + total.get(name, 0.0)
    with torch.no_grad():
        for name, x in _weights(module).items():
            x.copy_(total[name] / len(checkpoints))


def prune(folder: Path, keep: int, every: int) -> None:
    """Delete all but the newest two checkpoints and the newest `keep` at multiples of `every` steps."""
    paths = sorted(folder.glob(f"{PREFIX}*"), reverse=True)
    regular = [path for path in paths if int(path.name.removeprefix(PREFIX)) % every == 0]
    to_keep = {*paths[:2], *regular[:keep]}
    for path in [*(path for path in paths if path not in to_keep), *folder.glob(f"{UNFINISHED}*")]:
        shutil.rmtree(path, ignore_errors=True)


def _weights(module: nn.Module) -> dict[str, Tensor]:
    """Parameters, tied ones once, and the buffers that a model saves, such as the statistics of batch norms."""
    saved = module.state_dict().keys()
    buffers = {name: x for name, x in module.named_buffers() if name in saved}
    return {**dict(module.named_parameters()), **buffers}


def _fill(module: nn.Module, path: Path) -> None:
    tensors = safetensors.torch.load_file(path)
    expected = _weights(module)
    differing = set(expected.keys() ^ tensors.keys()) or {
        name for name, x in expected.items() if x.shape != tensors[name].shape
    }
    if differing:
        raise CheckpointError(f"{path} is of another model: {', '.join(sorted(differing)[:5])} differ")
    with torch.no_grad():
        for name, x in expected.items():
            x.copy_(tensors[name])


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
    """Flush the directory entries of a folder to the disk."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
