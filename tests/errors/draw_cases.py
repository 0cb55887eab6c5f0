"""Misuses of `shade`: see `cases.py`."""

from collections.abc import Callable

import torch

import regard as rg
from regard.errors import ShapeError

CASES: list[tuple[str, Callable[[], object], type[Exception], str]] = [
    ("shade-all-heads", lambda: rg.shade(torch.zeros(1, 2, 3, 5)), ShapeError, "got shape (1, 2, 3, 5)"),
    ("shade-negative", lambda: rg.shade(torch.tensor([[-2.0, 3.0]])), ShapeError, "got numbers from -2 to 3"),
    ("shade-infinite", lambda: rg.shade(torch.tensor([[0.0, torch.inf]])), ShapeError, "got numbers from 0 to inf"),
]
