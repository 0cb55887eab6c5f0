"""Calls of attention among the functions of PyTorch that a model calls, by whatever name they were imported.

`scaled_dot_product_attention` and `flex_attention` are seen as they are called; weights that a model makes itself are
seen as a softmax over the last axis whose result multiplies the values.
"""

import sys
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import replace
from threading import get_ident
from types import FrameType, FunctionType
from typing import Any, NamedTuple, final

import torch
from torch import Tensor, nn
from torch._higher_order_ops.flex_attention import flex_attention as FLEX
from torch.nn import functional
from torch.overrides import TorchFunctionMode

from regard.attention.engine.observer import unobserved
from regard.integrations.sdpa import MULTI_HEAD, ORIGINAL, PLAIN_TYPES, translate
from regard.lens.capture.call import AttentionCall, WeightsCall, of_attend, of_weights
from regard.lens.capture.flex import flex_rows

SOFTMAX = {torch.softmax, functional.softmax, Tensor.softmax}
DROPOUT = {functional.dropout, torch.dropout}
# Functions whose result holds the weights of their first argument.
SAME_WEIGHTS = {
    Tensor.to, Tensor.type, Tensor.type_as, Tensor.float, Tensor.half, Tensor.bfloat16, Tensor.contiguous, Tensor.clone,
    Tensor.view, Tensor.reshape, Tensor.__getitem__,
}  # fmt: skip
PRODUCTS = {torch.matmul, torch.bmm, torch.einsum, Tensor.matmul, Tensor.bmm, Tensor.__matmul__}
OPERATOR = "regard.attention."
REMEMBERED = 4  # softmaxes whose product with values may still come


class Caller(NamedTuple):
    """The module that called attention."""

    path: str  # in the model
    line: int  # of its code, which tells two calls of one module apart
    module: nn.Module


class Held(NamedTuple):
    """A tensor that holds weights."""

    tensor: Tensor
    weights: Tensor  # before dropout
    dropped: bool


Handler = Callable[[Caller, AttentionCall], Tensor | None]
Refused = Callable[[Caller, str], None]


@final
class FunctionCapture(TorchFunctionMode):
    """Sees the calls of attention inside a block, in its thread.

    Args:
        paths: path of each module of the model, by `id`.
        handle: called with the module that called and with the call; returns the output to use, or None.
        refuse: called with the module and the reason why a call cannot be seen.
    """

    def __init__(self, paths: dict[int, str], handle: Handler, refuse: Refused) -> None:
        super().__init__()
        self.paths, self.handle, self.refuse = paths, handle, refuse
        self.weights: OrderedDict[int, Held] = OrderedDict()  # by id of the tensor
        self.calls = 0  # that were handled
        self.thread = get_ident()

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if func is ORIGINAL:
            with unobserved():  # if `attend` replaces it, the call is captured here already
                output = func(*args, **kwargs)
            return self._sdpa(output, args, kwargs)
        if func is MULTI_HEAD and set(types) <= set(PLAIN_TYPES):
            with self:  # so that the calls inside of it are seen
                return _inside_multi_head()(*args, **kwargs)
        if func is FLEX:
            return self._flex(func(*args, **kwargs), args)
        if func in SOFTMAX:
            return self._softmax(func(*args, **kwargs), args, kwargs)
        if self.weights:
            if func in PRODUCTS:
                return self._product(func, func(*args, **kwargs), args)
            if (func in SAME_WEIGHTS or func in DROPOUT) and id(args[0]) in self.weights:
                return self._follow(func, func(*args, **kwargs), args[0])
        return func(*args, **kwargs)

    def _sdpa(self, output: Tensor, args: Any, kwargs: Any) -> Tensor:
        caller = self.caller()
        if caller is None:
            return output
        call = _bound(*args, **kwargs)
        if call is None:
            self.refuse(caller, "scaled_dot_product_attention with inputs that have no plain (batch, head, row) layout")
            return output
        heads = call.query.shape[:2]
        by_head = output.reshape(*heads, *output.shape[-2:])
        kind = "scaled_dot_product_attention"
        dropout = args[4] if len(args) > 4 else kwargs.get("dropout_p", 0.0)
        arguments = {**call.arguments, "dropout": dropout}
        captured = of_attend(kind, by_head, call.query, call.key, call.value, arguments)
        replaced = self.handle(caller, replace(captured, result=output))
        return output if replaced is None else replaced.reshape(output.shape)

    def _flex(self, result: Any, args: Any) -> Any:
        caller = self.caller()
        if caller is None:
            return result
        query, key, value, score_mod, mask, scale = args[:6]
        shape = (query.shape[0], query.shape[1], query.shape[2], key.shape[2])
        rows = flex_rows(query.detach(), key.detach(), score_mod, mask[-1], scale)
        call = WeightsCall(kind="flex_attention", shape=shape, value=value, output=result[0], rows=rows)
        replaced = self.handle(caller, replace(call, result=result[0]))
        return result if replaced is None else (replaced, *result[1:])

    def _softmax(self, weights: Tensor, args: Any, kwargs: Any) -> Tensor:
        dim = args[1] if len(args) > 1 else kwargs.get("dim")
        if weights.dim() >= 3 and dim in (-1, weights.dim() - 1):
            self._remember(Held(weights, weights, dropped=False))
        return weights

    def _follow(self, func: Any, result: Tensor, source: Tensor) -> Tensor:
        if isinstance(result, Tensor) and result.dim() >= 3:
            before = self.weights[id(source)]
            dropped = func in DROPOUT and result is not source and not torch.equal(result, source)
            self._remember(Held(result, before.weights if dropped else result, before.dropped or dropped))
        return result

    def _remember(self, held: Held) -> None:
        self.weights[id(held.tensor)] = held
        while len(self.weights) > REMEMBERED:
            self.weights.popitem(last=False)

    def _product(self, func: Any, output: Tensor, args: Any) -> Tensor:
        """A product of weights and values is attention; others are passed on."""
        first, second = args[1:3] if func is torch.einsum and len(args) == 3 else args[:2]
        known = self.weights.get(id(first)) if isinstance(first, Tensor) else None
        caller = self.caller() if known is not None else None
        if known is None or caller is None:
            return output
        del self.weights[id(first)]
        weights = known.weights
        heads = _heads(caller.module, weights)
        by_head = value = None
        if isinstance(second, Tensor) and func is not torch.einsum and weights.shape == first.shape:
            by_head = output.reshape(*heads, *output.shape[-2:])
            if second.shape[:-2] == weights.shape[:-2]:
                value = second.reshape(*heads, *second.shape[-2:])
        four = weights.reshape(*heads, *weights.shape[-2:])
        call = of_weights("softmax and matmul", by_head, four, value, dropped=known.dropped)
        replaced = self.handle(caller, replace(call, result=output))
        return output if replaced is None else replaced.reshape(output.shape)

    @property
    def is_active(self) -> bool:
        """Whether this is the thread that records."""
        return get_ident() == self.thread

    def caller(self, *, inside_operator: bool = False) -> Caller | None:
        """The innermost module of the model that is running; None outside of the model, and inside of `attend`.

        Args:
            inside_operator: whether to look through `attend`, for a call of it.
        """
        frame: FrameType | None = sys._getframe(1)
        while frame is not None:
            if not inside_operator and frame.f_globals.get("__name__", "").startswith(OPERATOR):
                return None
            first = frame.f_code.co_varnames[:1]
            if first and first[0] in ("self", "module"):
                owner = frame.f_locals.get(first[0])
                if isinstance(owner, nn.Module) and id(owner) in self.paths:
                    return Caller(self.paths[id(owner)], frame.f_lineno, owner)
            frame = frame.f_back
        return None


def _heads(owner: nn.Module, weights: Tensor) -> tuple[int, int]:
    """Sequences and heads of weights (..., L, S): of three dimensions, the module's number of heads parts the first."""
    *leading, last = weights.shape[:-2]
    if leading:
        return int(torch.Size(leading).numel()), last
    for name in ("num_heads", "n_heads", "num_attention_heads", "n_head", "heads"):
        heads = getattr(owner, name, None)
        if isinstance(heads, int) and heads > 0 and last % heads == 0:
            return last // heads, heads
    return last, 1


def _bound(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> Any:
    """The call in `attend`'s terms, if it means the same by it."""
    return translate(query, key, value, attn_mask, 0.0, is_causal, scale, enable_gqa)


def _inside_multi_head() -> Callable[..., Any]:
    """`multi_head_attention_forward` as it is, but that modes see the functions it calls instead of the whole."""
    names = {**vars(functional), "has_torch_function": lambda _: False}
    code: Any = MULTI_HEAD
    copy = FunctionType(code.__code__, names, code.__name__, code.__defaults__, code.__closure__)
    copy.__kwdefaults__ = code.__kwdefaults__
    return copy
