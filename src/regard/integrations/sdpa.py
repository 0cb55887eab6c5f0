"""PyTorch's `scaled_dot_product_attention`, wherever a model calls it, through `attend`."""

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
from regard.attention.engine.tracing import traced
from regard.attention.patterns.pattern import Causal
from regard.attention.patterns.sequence_pattern import Mask
from regard.attention.score import Dot
from regard.integrations.plans import run

ORIGINAL = functional.scaled_dot_product_attention
MULTI_HEAD = functional.multi_head_attention_forward
DEVICES = ("cpu", "cuda")
PLAIN_TYPES = (Tensor, nn.Parameter)
CAUSAL = Causal()  # one object, by which `attend` knows a call again


def replace_sdpa() -> "Replacement":
    """Inside the block, every call of `torch.nn.functional.scaled_dot_product_attention` runs through `attend`.

    Nothing that PyTorch accepts is refused: what `attend` does not mean (nested tensors, subclasses, devices other than
    CPU and CUDA, empty inputs, `torch.func`, traced graphs) passes through to PyTorch. A query that may see nothing
    gets 0 from both. Dropout drops other entries than PyTorch would, as likely ones.

    The replacement holds in the thread that enters the block, until it leaves, by an exception too; blocks may stand in
    each other. It finds calls by any name that they were imported under. `nn.MultiheadAttention` and
    `nn.TransformerEncoderLayer` leave their fused inference path for this one; with `need_weights=True`, which is the
    default of the first, PyTorch itself computes the weights and there is no call to replace.

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
    """The block of `replace_sdpa`. PyTorch keeps such modes in each thread, and takes this one off while it acts."""

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
    """PyTorch's function, its call of attention replaced.

    While the mode acts it is off for what is called inside, so a copy of the function gets other names to look up.
    """
    names = {**vars(functional), "scaled_dot_product_attention": scaled_dot_product_attention}
    names["has_torch_function"] = lambda _: False  # other modes see the operations inside instead of the whole
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
    """As PyTorch's function of this name, through `attend` where it means the call.

    Args:
        query: (..., L, E).
        key: (..., S, E).
        value: (..., S, V).
        attn_mask: booleans, True = may attend, or floats to add; broadcasts to (..., L, S).
        dropout_p: the probability that a weight is dropped.
        is_causal: whether a query sees the keys up to its own row, counted from the first.
        scale: what the dot products are multiplied by; 1 / sqrt(E) by default.
        enable_gqa: whether heads, the third dimension from the end, may be fewer in key and value.

    Returns:
        (..., L, V).
    """
    call = understood(query, key, value, attn_mask, dropout_p, is_causal, scale, enable_gqa)
    if call is None:
        return ORIGINAL(query, key, value, attn_mask, dropout_p, is_causal, scale=scale, enable_gqa=enable_gqa)
    output: Tensor = run(call.query, call.key, call.value, **call.arguments)
    return output.reshape(*call.leading, *output.shape[2:])


class Understood(NamedTuple):
    """A call in `attend`'s terms: four dimensions each."""

    query: Tensor
    key: Tensor
    value: Tensor
    arguments: dict[str, Any]
    leading: tuple[int, ...]  # of the output, in place of its first two dimensions


class Layout(NamedTuple):
    """What stands before the last two dimensions, broadcast."""

    batch: tuple[int, ...]
    heads: tuple[int, ...]  # one number, or none where the inputs are matrices
    groups: int


def understood(
    query: Any, key: Any, value: Any, mask: Any, dropout: Any, causal: Any, scale: Any, grouped: Any
) -> Understood | None:
    """The call, if `attend` means the same by it; PyTorch answers the others, with its own errors where it must."""
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
        mask = _four_of_mask(mask, layout, (query.shape[-2], key.shape[-2]), dtype)
        if mask is None:
            return None
        arguments |= {"pattern": Mask(mask)} if mask.dtype == torch.bool else {"bias": TensorBias(mask)}
    heads = layout.heads[0] if layout.heads else 1
    return Understood(
        _four(query, layout.batch, heads),
        _four(key, layout.batch, layout.groups),
        _four(value, layout.batch, layout.groups),
        arguments,
        layout.batch + layout.heads,
    )


def _is_plain(x: Any) -> bool:
    """Whether it is an ordinary tensor, of numbers in memory."""
    return type(x) in PLAIN_TYPES and x.layout is torch.strided and not x.is_nested and x.device.type in DEVICES


def _is_transformed() -> bool:
    """Whether `torch.func` or a tracer stands between the tensors and their numbers."""
    if torch.compiler.is_compiling():
        return False
    return torch._C._functorch.maybe_current_level() is not None or traced()


def _dtype(inputs: tuple[Tensor, Tensor, Tensor]) -> torch.dtype | None:
    """What the inputs are computed in, autocast applied; None if they differ, or are no floats."""
    kind = inputs[0].device.type
    dtypes = {x.dtype for x in inputs}
    if torch.is_autocast_enabled(kind) and dtypes <= {torch.float32, *HALVES}:
        dtypes = {torch.get_autocast_dtype(kind)}
    dtype = dtypes.pop()
    return dtype if dtype in FLOATS and not dtypes else None


def _layout(inputs: tuple[Tensor, Tensor, Tensor], grouped: bool) -> Layout | None:
    """How the inputs go together; None if they do not, or if one is empty."""
    if not all(x.dim() >= 2 and x.numel() for x in inputs):
        return None
    heads = [tuple(x.shape[-3:-2]) for x in inputs]
    if grouped:
        if not all(heads) or heads[1] != heads[2] or heads[0][0] % heads[1][0]:
            return None
        own, groups = heads[0], heads[1][0]
    else:
        found = _broadcast(heads)
        if found is None:
            return None
        own, groups = found, 1 if set(heads[1:]) <= {(), (1,)} else found[0]
    batch = _broadcast([tuple(x.shape[:-3]) for x in inputs])
    return None if batch is None else Layout(batch, own, groups)


def _broadcast(shapes: list[tuple[int, ...]]) -> tuple[int, ...] | None:
    """The shape that they broadcast to; None if they do not."""
    length = max(map(len, shapes))
    columns = zip(*((1,) * (length - len(shape)) + shape for shape in shapes), strict=True)
    sizes = [{n for n in column if n != 1} for column in columns]
    return None if any(len(n) > 1 for n in sizes) else tuple(n.pop() if n else 1 for n in sizes)


def _four(x: Tensor, batch: tuple[int, ...], heads: int) -> Tensor:
    """As (batch, heads, rows, columns), without a copy where the batch is one dimension."""
    return x.expand(*batch, heads, *x.shape[-2:]).reshape(math.prod(batch), heads, *x.shape[-2:])


def _four_of_mask(mask: Tensor, layout: Layout, last: tuple[int, int], dtype: torch.dtype) -> Tensor | None:
    """A mask that broadcasts to (batch, heads, L, S); None if PyTorch would not take it."""
    leading = layout.batch + layout.heads
    if mask.dtype not in (torch.bool, torch.float32, dtype) or mask.dim() > len(leading) + 2:
        return None
    if _broadcast([tuple(mask.shape), (*leading, *last)]) != (*leading, *last):
        return None
    if mask.dtype == torch.float32 and dtype == torch.float64:
        mask = mask.to(dtype)
    if mask.dim() > 4:
        return _four(mask.expand(*layout.batch, *mask.shape[-3:]), layout.batch, mask.shape[-3])
    return mask if mask.dim() else mask.reshape(1)
