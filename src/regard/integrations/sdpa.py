"""Replacement of PyTorch's `scaled_dot_product_attention` by `attend`, in any model."""

import math
from collections.abc import Callable
from functools import lru_cache
from types import FunctionType
from typing import Any, NamedTuple, final

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.overrides import TorchFunctionMode

from regard.attention.bias import TensorBias
from regard.attention.check import is_number
from regard.attention.engine.call import FLOATS, HALVES
from regard.attention.engine.tracing import is_jit_tracing
from regard.attention.patterns.pattern import Causal
from regard.attention.patterns.sequence_pattern import Mask
from regard.attention.score import Dot
from regard.integrations.plans import run

ORIGINAL = functional.scaled_dot_product_attention
MULTI_HEAD = functional.multi_head_attention_forward
DEVICES = ("cpu", "cuda")
PLAIN_TYPES = (Tensor, nn.Parameter)
CAUSAL = Causal()  # one object, because the call cache of `attend` compares identities


def replace_sdpa() -> "Replacement":
    """Context manager in which `torch.nn.functional.scaled_dot_product_attention` runs through `attend`.

    Every call that PyTorch accepts still works: calls that `attend` does not support (nested tensors, subclasses,
    devices other than CPU and CUDA, empty inputs, `torch.func`, traced graphs) are passed to PyTorch. A query without
    visible keys gets 0 in both. Dropout drops other entries than PyTorch's, with the same probability.

    The replacement affects the current thread until the block ends, also by an exception, and may be nested. It applies
    to the function under any imported name. `nn.MultiheadAttention` and `nn.TransformerEncoderLayer` use it instead of
    their fused inference path; with `need_weights=True`, the default of `nn.MultiheadAttention`, PyTorch computes the
    weights without calling the function, and nothing is replaced.

    Returns:
        A context manager.

    >>> query, key, value = torch.randn(3, 2, 4, 7, 8)
    >>> with rg.replace_sdpa():
    ...     output = torch.nn.functional.scaled_dot_product_attention(query, key, value)
    >>> torch.allclose(output, rg.attend(query, key, value))
    True
    """
    return Replacement()


@final
class Replacement(TorchFunctionMode):
    """Context manager of `replace_sdpa`. Such modes are per thread, and PyTorch disables this one while it runs."""

    def __repr__(self) -> str:
        return "replace_sdpa()"

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if func is ORIGINAL:
            return scaled_dot_product_attention(*args, **kwargs)
        if func is MULTI_HEAD and set(types) <= set(PLAIN_TYPES):
            return _multi_head()(*args, **kwargs)
        return func(*args, **kwargs)


@lru_cache
def _multi_head() -> Callable[..., Any]:
    """Copy of PyTorch's multi-head attention function that calls the replacement.

    The mode is disabled while it runs, so calls inside the function are replaced in the globals of a copy.
    """
    names = {**vars(functional), "scaled_dot_product_attention": scaled_dot_product_attention}
    names["has_torch_function"] = lambda _: False  # other modes see the operations inside instead of this function
    code: Any = MULTI_HEAD
    copy = FunctionType(code.__code__, names, code.__name__, code.__defaults__, code.__closure__)
    copy.__kwdefaults__ = code.__kwdefaults__
    return copy


def scaled_dot_product_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    *,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> Tensor:
    """PyTorch's function of this name, computed by `attend` where it supports the call.

    Args:
        query: (..., L, E).
        key: (..., S, E).
        value: (..., S, V).
        attn_mask: booleans, True = may attend, or floats to add; broadcasts to (..., L, S).
        dropout_p: probability that a weight is dropped.
        is_causal: causal mask aligned at the first query and key.
        scale: factor on the dot products; 1 / sqrt(E) by default.
        enable_gqa: whether key and value may have fewer heads (third dimension from the end) than the query.

    Returns:
        (..., L, V).
    """
    call = translate(query, key, value, attn_mask, dropout_p, is_causal, scale, enable_gqa)
    if call is None:
        return ORIGINAL(query, key, value, attn_mask, dropout_p, is_causal, scale=scale, enable_gqa=enable_gqa)
    output: Tensor = run(call.query, call.key, call.value, **call.arguments)
    return output.reshape(*call.leading, *output.shape[2:])


class AttendCall(NamedTuple):
    """Arguments of `attend`: inputs with four dimensions, and keyword arguments."""

    query: Tensor
    key: Tensor
    value: Tensor
    arguments: dict[str, Any]
    leading: tuple[int, ...]  # replaces the first two dimensions of the output


class Layout(NamedTuple):
    """Broadcast leading dimensions of the inputs."""

    batch: tuple[int, ...]
    heads: tuple[int, ...]  # one size, or none if the inputs are matrices
    groups: int


def translate(
    query: Any, key: Any, value: Any, mask: Any, dropout: Any, causal: Any, scale: Any, grouped: Any
) -> AttendCall | None:
    """Translate a call for `attend`; None if PyTorch must compute it or raise its own error."""
    inputs = (query, key, value)
    if _is_transformed() or not all(
        _is_plain(x) and x.device == query.device for x in (inputs if mask is None else (*inputs, mask))
    ):
        return None
    dtype, layout = _dtype(inputs), _layout(inputs, bool(grouped))
    if (
        dtype is None
        or layout is None
        or query.shape[-1] != key.shape[-1]
        or key.shape[-2] != value.shape[-2]
        or not (is_number(dropout) and 0 <= dropout < 1)
        or not (scale is None or (is_number(scale) and math.isfinite(scale)))
        or (causal and mask is not None)
    ):
        return None
    arguments: dict[str, Any] = {"dropout": dropout}
    if scale is not None:
        arguments["score"] = Dot(scale=scale)
    if causal:
        arguments |= {"pattern": CAUSAL, "query_start": 0}
    elif mask is not None:
        mask = _mask_4d(mask, layout, (query.shape[-2], key.shape[-2]), dtype)
        if mask is None:
            return None
        arguments |= {"pattern": Mask(mask)} if mask.dtype == torch.bool else {"bias": TensorBias(mask)}
    heads = layout.heads[0] if layout.heads else 1
    return AttendCall(
        _to_4d(query, layout.batch, heads),
        _to_4d(key, layout.batch, layout.groups),
        _to_4d(value, layout.batch, layout.groups),
        arguments,
        layout.batch + layout.heads,
    )


def _is_plain(x: Any) -> bool:
    """Whether x is a dense tensor without subclass on a supported device."""
    return type(x) in PLAIN_TYPES and x.layout is torch.strided and not x.is_nested and x.device.type in DEVICES


def _is_transformed() -> bool:
    """Whether a `torch.func` transform or torch.jit.trace is active."""
    if torch.compiler.is_compiling():
        return False
    return torch._C._functorch.maybe_current_level() is not None or is_jit_tracing()


def _dtype(inputs: tuple[Tensor, Tensor, Tensor]) -> torch.dtype | None:
    """Common dtype of the inputs under autocast; None if they differ or are not floating point."""
    kind = inputs[0].device.type
    dtypes = {x.dtype for x in inputs}
    if torch.is_autocast_enabled(kind) and dtypes <= {torch.float32, *HALVES}:
        dtypes = {torch.get_autocast_dtype(kind)}
    dtype = dtypes.pop()
    return dtype if dtype in FLOATS and not dtypes else None


def _layout(inputs: tuple[Tensor, Tensor, Tensor], grouped: bool) -> Layout | None:
    """Layout of the inputs; None if they are incompatible or empty."""
    if not all(x.dim() >= 2 and x.numel() for x in inputs):
        return None
    heads = [tuple(x.shape[-3:-2]) for x in inputs]
    if grouped:
        if not all(heads) or heads[1] != heads[2] or heads[0][0] % heads[1][0]:
            return None
        own, groups = heads[0], heads[1][0]
    else:
        common = _broadcast(heads)
        if common is None:
            return None
        own, groups = common, 1 if set(heads[1:]) <= {(), (1,)} else common[0]
    batch = _broadcast([tuple(x.shape[:-3]) for x in inputs])
    return None if batch is None else Layout(batch, own, groups)


def _broadcast(shapes: list[tuple[int, ...]]) -> tuple[int, ...] | None:
    """Common broadcast shape; None if there is none."""
    length = max(map(len, shapes))
    columns = zip(*((1,) * (length - len(shape)) + shape for shape in shapes), strict=True)
    sizes = [{n for n in column if n != 1} for column in columns]
    return None if any(len(n) > 1 for n in sizes) else tuple(n.pop() if n else 1 for n in sizes)


def _to_4d(x: Tensor, batch: tuple[int, ...], heads: int) -> Tensor:
    """Reshape to (batch, heads, rows, columns), without a copy if the batch is one dimension."""
    return x.expand(*batch, heads, *x.shape[-2:]).reshape(math.prod(batch), heads, *x.shape[-2:])


def _mask_4d(mask: Tensor, layout: Layout, last: tuple[int, int], dtype: torch.dtype) -> Tensor | None:
    """Reshape a mask to broadcast to (batch, heads, L, S); None if PyTorch would reject it."""
    leading = layout.batch + layout.heads
    if mask.dtype not in (torch.bool, torch.float32, dtype) or mask.dim() > len(leading) + 2:
        return None
    if _broadcast([tuple(mask.shape), (*leading, *last)]) != (*leading, *last):
        return None
    if mask.dtype == torch.float32 and dtype == torch.float64:
        mask = mask.to(dtype)
    if mask.dim() > 4 or (mask.dim() == 4 and len(layout.batch) > 1):
        return _to_4d(mask.expand(*layout.batch, *mask.shape[-3:]), layout.batch, mask.shape[-3])
    return mask if mask.dim() else mask.reshape(1)
