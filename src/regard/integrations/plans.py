"""Collection of the plans of the attention calls in models of other libraries."""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import torch
from torch import Tensor

from regard.attention.attend import attend, plan
from regard.attention.plan import Plan

_collected: ContextVar[list[Plan] | None] = ContextVar("plans", default=None)


@contextmanager
def plans() -> Iterator[list[Plan]]:
    """Context manager that collects the plan of every attention call through an integration, in this thread.

    A plan keeps the inputs of its call alive, so use it for a few calls and not for a whole training run.

    Yields:
        A list of the plans, in the order of the calls.

    >>> from torch.nn.functional import scaled_dot_product_attention
    >>> with plans() as collected, rg.replace_sdpa():
    ...     output = scaled_dot_product_attention(*torch.randn(3, 1, 2, 5, 8), is_causal=True)
    >>> print(collected[0].explain().splitlines()[0])
    AttentionSpec(pattern=Causal())
    """
    collected: list[Plan] = []
    token = _collected.set(collected)
    try:
        yield collected
    finally:
        _collected.reset(token)


def run(query: Tensor, key: Tensor, value: Tensor, **arguments: Any) -> Any:
    """Call `attend`, and record the plan if plans are being collected; not in compiled graphs."""
    collected = None if torch.compiler.is_compiling() else _collected.get()
    if collected is not None:
        collected.append(plan(query, key, value, **arguments))
    return attend(query, key, value, **arguments)
