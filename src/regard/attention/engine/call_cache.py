"""Call cache: results of the checks, keyed by the signature of a call.

For small inputs the checks take as long as the attention itself. The signature consists of everything that the checks
read: shapes, dtypes, devices, and the identity of the values. Only calls whose checks depend on the signature alone are
cached: no tensor in the values, no dropout, no summary. A backend may add a fast path for such calls.
"""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from regard.attention.engine.call import Call
from regard.attention.engine.tracing import is_traced
from regard.attention.spec import AttentionSpec

MAX_CALLS = 1024  # cached calls; decoding adds one per step
Signature = tuple[object, ...]
FastPath = Callable[[Tensor, Tensor, Tensor], Tensor | None]  # inputs -> output; None if it does not apply

# By backend: makes the fast path for all calls with the signature of the given one, or None. Whether gradients are
# needed is not part of the signature, so the fast path must check it.
FAST_PATHS: dict[str, Callable[[Call], FastPath | None]] = {}


class CachedCall(NamedTuple):
    """Results of the checks of a call; `values` keeps the objects alive whose ids are in the signature."""

    spec: AttentionSpec
    query_start: int
    backend: str
    fast_path: FastPath | None
    values: tuple[object, ...]


_cache: dict[Signature, CachedCall] = {}


def lookup(
    query: object,
    key: object,
    value: object,
    values: tuple[object, ...],
    query_start: object,
    key_start: object,
    backend: object,
) -> tuple[Signature | None, CachedCall | None]:
    """Signature of a call, None if it cannot be cached, and its cache entry, None if there is none."""
    if (
        is_traced()  # the choice of a backend depends on tangents
        or torch._C._is_any_autocast_enabled()
        or not type(query) is type(key) is type(value) is Tensor
        or not query.layout is key.layout is value.layout is torch.strided
        or query.is_neg()
        or key.is_neg()
        or value.is_neg()
        or (query_start is not None and type(query_start) is not int)  # True == 1 as a dictionary key
        or not (type(key_start) is int and type(backend) is str)
    ):
        return None, None
    first, second, third, fourth = values
    on_cpu = query.is_cpu and key.is_cpu and value.is_cpu  # cheaper than comparing devices
    signature = (
        query.shape, key.shape, value.shape, query.dtype, key.dtype, value.dtype,
        None if on_cpu else (query.device, key.device, value.device),
        id(first), id(second), id(third), id(fourth), query_start, key_start, backend,
    )  # fmt: skip
    return signature, _cache.get(signature)


def store(signature: Signature, call: Call, backend: str, values: tuple[object, ...]) -> None:
    """Cache the results of the checks of a call, unless its values hold tensors or are user-defined."""
    spec = call.spec
    parts = (spec.score, spec.normalizer, spec.pattern, spec.bias)
    if isinstance(call.query_start, Tensor):
        return
    if any(
        part is not None and (part.tensor_fields or not type(part).__module__.startswith("regard.")) for part in parts
    ):
        return
    if len(_cache) >= MAX_CALLS:
        _cache.clear()
    fast_path = FAST_PATHS[backend](call) if backend in FAST_PATHS else None
    _cache[signature] = CachedCall(spec, call.query_start, backend, fast_path, values)
