"""Custom op for compiled and exported graphs: the whole call is one opaque operation.

Tiles may depend on data, and kernels take addresses, so a compiler cannot trace into a call. The op runs the eager
computation; its backward recomputes the call with gradients.
"""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import fields
from typing import Any, NamedTuple

import torch
from torch import Tensor

from regard.attention.engine.call import Call
from regard.attention.engine.serialization import from_text, to_text
from regard.attention.engine.tile_sum import alias, pull
from regard.attention.engine.tiled import compute
from regard.attention.summary import Summary, SummaryResult

EAGER: dict[
    str, Callable[[Call], tuple[Tensor, SummaryResult | None]]
] = {}  # eager computation of each backend, by name


class _OpArguments(NamedTuple):
    """Arguments of the op besides the differentiable tensors, in types that a graph supports."""

    backend: str
    spec: str
    summary: str
    integers: list[int]  # of the spec, then of the summary
    floats: list[float]
    seed: Tensor | None
    starts: Tensor | None
    query_start: int
    key_start: int


def run_as_op(call: Call, backend: str) -> tuple[Tensor, SummaryResult | None]:
    """Run a call by a backend as one custom op."""
    spec, integers, floats = to_text(call.spec)
    summary, more, _ = to_text(call.summary)
    starts = call.query_start if isinstance(call.query_start, Tensor) else None
    query_start = 0 if isinstance(call.query_start, Tensor) else call.query_start
    arguments = _OpArguments(
        backend, spec, summary, [*integers, *more], floats, call.seed, starts, query_start, call.key_start
    )
    output, *summaries = attend_op(call.tensors, *arguments)
    if call.summary is None:
        return output, None
    return output, SummaryResult(**dict(zip(_names(call.summary), summaries, strict=True)))


def _call(tensors: Sequence[Tensor], arguments: _OpArguments) -> Call:
    """Rebuild the call from the arguments of the op."""
    query, key, value, *field_tensors = tensors
    integers = iter(arguments.integers)
    spec = from_text(arguments.spec, field_tensors, integers, arguments.floats)
    summary = from_text(arguments.summary, [], integers, [])
    start = arguments.query_start if arguments.starts is None else arguments.starts
    return Call(query, key, value, spec, arguments.seed, start, arguments.key_start, summary)


def _names(summary: Summary) -> list[str]:
    """Fields of `SummaryResult` that a summary fills, in order."""
    filled = {
        "log_sum_exp": summary.log_sum_exp,
        "log_prob": summary.log_prob,
        "entropy": summary.entropy,
        "expected_key": summary.expected_key,
        "key_variance": summary.expected_key,
        "key_mass": summary.key_mass,
        "top_keys": summary.top_k > 0,
        "top_weights": summary.top_k > 0,
        "grid": summary.grid is not None,
        "weights": summary.weights,
    }
    return [f.name for f in fields(SummaryResult) if filled[f.name]]


def _results(call: Call, backend: str) -> list[Tensor]:
    return _as_list(call, *EAGER[backend](call))


def _as_list(call: Call, output: Tensor, summary_result: SummaryResult | None) -> list[Tensor]:
    names = [] if call.summary is None else _names(call.summary)
    return [output, *(getattr(summary_result, name) for name in names)]


@torch.library.custom_op("regard::attend", mutates_args=())
def attend_op(
    tensors: list[Tensor], backend: str, spec: str, summary: str, integers: list[int], floats: list[float],
    seed: Tensor | None, starts: Tensor | None, query_start: int, key_start: int,
) -> list[Tensor]:  # fmt: skip
    """Output, then the requested summaries; `tensors` are query, key, value and the tensors held by the values."""
    arguments = _OpArguments(backend, spec, summary, integers, floats, seed, starts, query_start, key_start)
    with torch.no_grad():
        return [x.contiguous() for x in _results(_call(tensors, arguments), backend)]


@attend_op.register_fake
def _(
    tensors: list[Tensor], backend: str, spec: str, summary: str, integers: list[int], floats: list[float],
    seed: Tensor | None, starts: Tensor | None, query_start: int, key_start: int,
) -> list[Tensor]:  # fmt: skip
    arguments = _OpArguments(backend, spec, summary, integers, floats, seed, starts, query_start, key_start)
    call = _call(tensors, arguments)
    batch, heads, rows, _ = call.query.shape
    keys, requested = call.key.shape[2], call.summary
    results = [call.query.new_empty(batch, heads, rows, call.value.shape[3])]
    if requested is None:
        return results
    shapes: dict[str, tuple[int, ...]] = {
        "key_mass": (batch, heads, keys),
        "top_keys": (batch, heads, rows, requested.top_k),
        "top_weights": (batch, heads, rows, requested.top_k),
        "grid": (batch, heads, *(requested.grid or ())),
        "weights": (batch, heads, rows, keys),
    }
    for name in _names(requested):
        dtype = torch.int64 if name == "top_keys" else call.dtype
        results.append(call.query.new_empty(shapes.get(name, (batch, heads, rows)), dtype=dtype))
    return results


def _autograd() -> AbstractContextManager[Any]:
    """Enable autograd inside a custom op, where PyTorch excludes autograd's dispatch keys."""
    include, exclude = torch._C._dispatch_tls_local_include_set(), torch._C._dispatch_tls_local_exclude_set()
    for key in ("AutogradFunctionality", "ADInplaceOrView"):
        exclude = exclude.remove(getattr(torch._C.DispatchKey, key))
    guard: AbstractContextManager[Any] = torch._C._ForceDispatchKeyGuard(include, exclude)
    return guard


@torch.library.custom_op("regard::attend_backward", mutates_args=())
def attend_backward(
    gradients: list[Tensor], live: list[int], grad_indices: list[int],
    tensors: list[Tensor], backend: str, spec: str, summary: str, integers: list[int], floats: list[float],
    seed: Tensor | None, starts: Tensor | None, query_start: int, key_start: int,
) -> list[Tensor]:  # fmt: skip
    """Gradients of tensors `grad_indices` (indices), from those of results `live` (indices)."""
    arguments = _OpArguments(backend, spec, summary, integers, floats, seed, starts, query_start, key_start)
    inputs = [x.detach().requires_grad_(i in grad_indices) for i, x in enumerate(tensors)]
    leaves = [inputs[i] for i in grad_indices]
    with _autograd(), torch.enable_grad():
        results = _results(_call(inputs, arguments), backend)
        grads = pull([results[i] for i in live], leaves, gradients, create_graph=False)
    return [torch.zeros_like(x) if g is None else g.contiguous() for x, g in zip(leaves, grads, strict=True)]


@attend_backward.register_fake
def _(
    gradients: list[Tensor], live: list[int], grad_indices: list[int],
    tensors: list[Tensor], backend: str, spec: str, summary: str, integers: list[int], floats: list[float],
    seed: Tensor | None, starts: Tensor | None, query_start: int, key_start: int,
) -> list[Tensor]:  # fmt: skip
    return [torch.empty_like(tensors[i], memory_format=torch.contiguous_format) for i in grad_indices]


def _save(ctx: Any, inputs: tuple[Any, ...], output: list[Tensor]) -> None:
    tensors, arguments = inputs[0], _OpArguments(*inputs[1:])
    ctx.grad_indices = [i for i, x in enumerate(tensors) if x.requires_grad]
    ctx.arguments = arguments._replace(seed=None, starts=None)
    ctx.save_for_backward(*tensors, arguments.seed, arguments.starts)


def _backward(ctx: Any, gradients: list[Tensor | None]) -> tuple[Any, ...]:
    *tensors, seed, starts = ctx.saved_tensors
    arguments = ctx.arguments._replace(seed=seed, starts=starts)
    live = [i for i, g in enumerate(gradients) if g is not None]
    incoming = [g for g in gradients if g is not None]
    if torch.is_grad_enabled() and not torch.compiler.is_compiling():  # second derivatives
        aliases = [alias(x) for x in tensors]
        call = _call(aliases, arguments)
        results = _as_list(call, *compute(call))
        pulled = pull([results[i] for i in live], [aliases[i] for i in ctx.grad_indices], incoming, create_graph=True)
        grads = [
            torch.zeros_like(tensors[i]) if g is None else g for i, g in zip(ctx.grad_indices, pulled, strict=True)
        ]
    else:
        grads = attend_backward(incoming, live, ctx.grad_indices, list(tensors), *arguments)
    by_input: list[Tensor | None] = [None] * len(tensors)
    for i, gradient in zip(ctx.grad_indices, grads, strict=True):
        by_input[i] = gradient
    return (by_input, *([] if x == [] else None for x in arguments))  # PyTorch takes an empty list as a list of tensors


attend_op.register_autograd(_backward, setup_context=_save)
