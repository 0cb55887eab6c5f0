"""Checks of the fields of a value: type and range. Sizes are checked in the call, where they are known."""

import math
from typing import TypeGuard

import numpy as np
import torch
from torch import Tensor

from regard.attention.engine.tracing import opaque
from regard.errors import ConfigError, ShapeError

INTEGERS = (int, np.integer, torch.SymInt)
NUMBERS = (*INTEGERS, float, np.floating, torch.SymFloat)


def check_integer(owner: str, name: str, x: object, minimum: int, note: str = "") -> None:
    """Raise ConfigError unless `x` is a 64-bit integer >= `minimum`; `note` is appended to the expectation."""
    if not is_integer(x) or not minimum <= x < 2**63:
        raise ConfigError(f"{owner}: {name}={show(x)} must be an integer >= {minimum}{note}, and below 2^63")


def check_number(owner: str, name: str, x: object, note: str = "") -> None:
    """Raise ConfigError unless `x` is a finite number or a tensor; `note` is appended to the expectation."""
    if isinstance(x, Tensor):
        return
    if not is_number(x) or not math.isfinite(x):
        raise ConfigError(f"{owner}: {name}={show(x)} must be a finite number or a tensor{note}")


def check_tensor(owner: str, name: str, x: object) -> None:
    """Raise ShapeError unless `x` is a tensor."""
    if not isinstance(x, Tensor):
        raise ShapeError(f"{owner}: {name}={show(x)} is not a tensor; wrap it in torch.tensor(...)")


def check_grid(x: object) -> None:
    """Raise ConfigError unless `x` is a tuple of two bin counts."""
    if not isinstance(x, tuple) or len(x) != 2 or not all(is_integer(bins) and bins >= 1 for bins in x):
        raise ConfigError(f"Summary: grid={show(x)} must be (query bins, key bins), two integers >= 1")


def is_dense(x: object) -> bool:
    """Whether `x` is a dense (strided) tensor: neither sparse nor nested."""
    return isinstance(x, Tensor) and x.layout is torch.strided


def is_integer(x: object) -> TypeGuard[int]:
    """Whether `x` is an integer; booleans are not."""
    return isinstance(x, INTEGERS) and not isinstance(x, bool)


def is_number(x: object) -> TypeGuard[float]:
    """Whether `x` is a real number; booleans are not."""
    return isinstance(x, NUMBERS) and not isinstance(x, bool)


def smallest(x: float | Tensor) -> float:
    """Smallest entry; infinity where reading it would synchronize or fail: GPU, tracing, torch.vmap."""
    if not isinstance(x, Tensor):
        return x
    readable = not opaque() and x.device.type == "cpu" and x.numel() > 0
    return float(x.detach().min()) if readable else math.inf


def show(x: object) -> str:
    """Text of a value in an error message; a tensor is shown by dtype and shape."""
    return f"Tensor({x.dtype}, {tuple(x.shape)})" if isinstance(x, Tensor) else repr(x)
