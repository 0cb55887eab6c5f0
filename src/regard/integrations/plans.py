"""What runs inside a model of another library, call by call."""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import torch
from torch import Tensor

from regard.attention.attend import attend, plan
from regard.attention.plan import Plan

_watched: ContextVar[list[Plan] | None] = ContextVar("plans", default=None)


@contextmanager
def plans() -> Iterator[list[Plan]]:
    """Collects the plan of every attention that a model runs through regard, in this thread.

    A plan keeps the inputs of its call alive: for a look at some calls, not for a whole training.

    Yields:
        The plans so far, in the order of the calls.

    >>> from torch.nn.functional import scaled_dot_product_attention
    >>> with plans() as seen, rg.replace_sdpa():
    ...     output = scaled_dot_product_attention(*torch.randn(3, 1, 2, 5, 8), is_causal=True)
    >>> print(seen[0].explain().splitlines()[0])
    AttentionSpec(pattern=Causal())
    """
    seen: list[Plan] = []
    token = _watched.set(seen)
    try:
        yield seen
    finally:
        _watched.reset(token)


def run(query: Tensor, key: Tensor, value: Tensor, **arguments: Any) -> Any:
    """What `attend` gives; its plan is noted where somebody collects them, but for compiled graphs."""
    seen = None if torch.compiler.is_compiling() else _watched.get()
    if seen is not None:
        seen.append(plan(query, key, value, **arguments))
    return attend(query, key, value, **arguments)
