"""What a value asks of its own fields: the right kind, and in range. Sizes are checked when a call is known."""

import math
from typing import TypeGuard

import numpy as np
import torch
from torch import Tensor

from regard.attention.engine.tracing import opaque
from regard.errors import ConfigError, ShapeError

INTEGERS = (int, np.integer, torch.SymInt)
NUMBERS = (*INTEGERS, float, np.floating, torch.SymFloat)


def check_integer(owner: str, name: str, x: object, least: int, why: str = "") -> None:
    """Raise ConfigError unless `x` is an integer of 64 bits, at least `least`; `why` ends the sentence."""
    if not is_integer(x) or not least <= x < 2**63:
        raise ConfigError(f"{owner}: {name}={show(x)} must be an integer >= {least}{why}, and below 2^63")


def check_number(owner: str, name: str, x: object, why: str = "") -> None:
    """Raise ConfigError unless `x` is a finite number or a tensor."""
    if isinstance(x, Tensor):
        return
    if not is_number(x) or not math.isfinite(x):
        raise ConfigError(f"{owner}: {name}={show(x)} must be a finite number or a tensor{why}")


def check_tensor(owner: str, name: str, x: object) -> None:
    """Raise ShapeError unless `x` is a tensor."""
    if not isinstance(x, Tensor):
        raise ShapeError(f"{owner}: {name}={show(x)} is not a tensor; wrap it in torch.tensor(...)")


def check_grid(x: object) -> None:
    """Raise ConfigError unless `x` is two numbers of bins."""
    if not isinstance(x, tuple) or len(x) != 2 or not all(is_integer(bins) and bins >= 1 for bins in x):
        raise ConfigError(f"Summary: grid={show(x)} must be (query bins, key bins), two integers >= 1")


def is_dense(x: object) -> bool:
    """Whether `x` is a tensor with a value in memory for each index: not sparse, not nested."""
    return isinstance(x, Tensor) and x.layout is torch.strided


def is_integer(x: object) -> TypeGuard[int]:
    """Whether `x` counts something; True and False do not."""
    return isinstance(x, INTEGERS) and not isinstance(x, bool)


def is_number(x: object) -> TypeGuard[float]:
    """Whether `x` is a real number; True and False are not."""
    return isinstance(x, NUMBERS) and not isinstance(x, bool)


def smallest(x: float | Tensor) -> float:
    """The least entry, where reading it is free: infinity for a tensor on a device, recorded, or under torch.vmap."""
    if not isinstance(x, Tensor):
        return x
    known = not opaque() and x.device.type == "cpu" and x.numel() > 0
    return float(x.detach().min()) if known else math.inf


def show(x: object) -> str:
    """A value in an error message: tensors by their dtype and shape."""
    return f"Tensor({x.dtype}, {tuple(x.shape)})" if isinstance(x, Tensor) else repr(x)
