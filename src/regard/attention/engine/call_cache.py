"""Calls that were checked before: the same values on inputs of the same sizes need no second check.

For a small input the checks take as long as the attention. What they read is the call's signature; what they found out
is remembered by it. Only for calls whose outcome the signature tells: no tensor in the values, no dropout, no summary.
A backend may know a shorter way for such calls.
"""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from regard.attention.engine.call import Call
from regard.attention.engine.tracing import is_traced
from regard.attention.spec import AttentionSpec

MOST = 1024  # calls remembered; decoding makes one a step
Signature = tuple[object, ...]
Shortcut = Callable[[Tensor, Tensor, Tensor], Tensor | None]  # inputs -> output; None where it does not lead

# Of the backends that know one: the shorter way for calls with the signature of this one, None if there is none. That
# gradients are wanted is no part of a signature.
SHORTCUTS: dict[str, Callable[[Call], Shortcut | None]] = {}


class Checked(NamedTuple):
    """What the checks of a call found out, and the values whose identity its signature holds."""

    spec: AttentionSpec
    query_start: int
    backend: str
    shortcut: Shortcut | None
    values: tuple[object, ...]


_checked: dict[Signature, Checked] = {}


def recall(
    query: object,
    key: object,
    value: object,
    values: tuple[object, ...],
    query_start: object,
    key_start: object,
    backend: object,
) -> tuple[Signature | None, Checked | None]:
    """The signature of a call, None if it has to be checked each time; and what is known of it, None if nothing."""
    if (
        is_traced()  # the choice of a backend looks for tangents
        or torch._C._is_any_autocast_enabled()
        or not type(query) is type(key) is type(value) is Tensor
        or not query.layout is key.layout is value.layout is torch.strided
        or query.is_neg()
        or key.is_neg()
        or value.is_neg()
        or (query_start is not None and type(query_start) is not int)  # True counts as 1 in a dictionary
        or not (type(key_start) is int and type(backend) is str)
    ):
        return None, None
    first, second, third, fourth = values
    on_cpu = query.is_cpu and key.is_cpu and value.is_cpu  # cheaper to ask than their devices
    signature = (
        query.shape, key.shape, value.shape, query.dtype, key.dtype, value.dtype,
        None if on_cpu else (query.device, key.device, value.device),
        id(first), id(second), id(third), id(fourth), query_start, key_start, backend,
    )  # fmt: skip
    return signature, _checked.get(signature)


def remember(signature: Signature, call: Call, backend: str, values: tuple[object, ...]) -> None:
    """Keep what the checks of a call found out, unless its values hold tensors, or checks of their own."""
    spec = call.spec
    parts = (spec.score, spec.normalizer, spec.pattern, spec.bias)
    if isinstance(call.query_start, Tensor):
        return
    if any(part is not None and (part.held or not type(part).__module__.startswith("regard.")) for part in parts):
        return
    if len(_checked) >= MOST:
        _checked.clear()
    shortcut = SHORTCUTS[backend](call) if backend in SHORTCUTS else None
    _checked[signature] = Checked(spec, call.query_start, backend, shortcut, values)
