"""A call as one operation of a compiled or exported graph.

Which tiles there are may depend on data, and kernels take addresses, so no compiler looks into it: forward computes as
in eager code; backward computes again, with gradients.
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
from regard.attention.summary import Seen, Summary

EAGER: dict[
    str, Callable[[Call], tuple[Tensor, Seen | None]]
] = {}  # what a backend does outside of a graph, by its name


class _Plain(NamedTuple):
    """What a call holds besides its differentiable tensors, in the types that a graph can carry."""

    backend: str
    spec: str
    summary: str
    integers: list[int]  # of the spec, then of the summary
    floats: list[float]
    seed: Tensor | None
    starts: Tensor | None
    query_start: int
    key_start: int


def run_as_op(call: Call, backend: str) -> tuple[Tensor, Seen | None]:
    """What a backend gives, as one operation."""
    spec, integers, floats = to_text(call.spec)
    summary, more, _ = to_text(call.summary)
    starts = call.query_start if isinstance(call.query_start, Tensor) else None
    query_start = 0 if isinstance(call.query_start, Tensor) else call.query_start
    plain = _Plain(backend, spec, summary, [*integers, *more], floats, call.seed, starts, query_start, call.key_start)
    tensors = call.tensors
    output, *summaries = attend_op(tensors, *plain)
    if call.summary is None:
        return output, None
    return output, Seen(**dict(zip(_names(call.summary), summaries, strict=True)))


def _call(tensors: Sequence[Tensor], plain: _Plain) -> Call:
    """The call again."""
    query, key, value, *held = tensors
    integers = iter(plain.integers)
    spec = from_text(plain.spec, held, integers, plain.floats)
    summary = from_text(plain.summary, [], integers, [])
    start = plain.query_start if plain.starts is None else plain.starts
    return Call(query, key, value, spec, plain.seed, start, plain.key_start, summary)


def _names(summary: Summary) -> list[str]:
    """The fields of Seen that a summary fills, in order."""
    filled = {
        "log_sum_exp": summary.log_sum_exp,
        "entropy": summary.entropy,
        "expected_key": summary.expected_key,
        "key_variance": summary.expected_key,
        "key_mass": summary.key_mass,
        "top_keys": summary.top_k > 0,
        "top_weights": summary.top_k > 0,
        "grid": summary.grid is not None,
        "weights": summary.weights,
    }
    return [f.name for f in fields(Seen) if filled[f.name]]


def _results(call: Call, backend: str) -> list[Tensor]:
    return _listed(call, *EAGER[backend](call))


def _listed(call: Call, output: Tensor, seen: Seen | None) -> list[Tensor]:
    names = [] if call.summary is None else _names(call.summary)
    return [output, *(getattr(seen, name) for name in names)]


@torch.library.custom_op("regard::attend", mutates_args=())
def attend_op(
    tensors: list[Tensor], backend: str, spec: str, summary: str, integers: list[int], floats: list[float],
    seed: Tensor | None, starts: Tensor | None, query_start: int, key_start: int,
) -> list[Tensor]:  # fmt: skip
    """The output and then the summaries asked for; `tensors` are query, key, value and what the values hold."""
    plain = _Plain(backend, spec, summary, integers, floats, seed, starts, query_start, key_start)
    with torch.no_grad():
        return [x.contiguous() for x in _results(_call(tensors, plain), backend)]


@attend_op.register_fake
def _(
    tensors: list[Tensor], backend: str, spec: str, summary: str, integers: list[int], floats: list[float],
    seed: Tensor | None, starts: Tensor | None, query_start: int, key_start: int,
) -> list[Tensor]:  # fmt: skip
    call = _call(tensors, _Plain(backend, spec, summary, integers, floats, seed, starts, query_start, key_start))
    batch, heads, rows, _ = call.query.shape
    keys, asked = call.key.shape[2], call.summary
    results = [call.query.new_empty(batch, heads, rows, call.value.shape[3])]
    if asked is None:
        return results
    shapes: dict[str, tuple[int, ...]] = {
        "key_mass": (batch, heads, keys),
        "top_keys": (batch, heads, rows, asked.top_k),
        "top_weights": (batch, heads, rows, asked.top_k),
        "grid": (batch, heads, *(asked.grid or ())),
        "weights": (batch, heads, rows, keys),
    }
    for name in _names(asked):
        dtype = torch.int64 if name == "top_keys" else call.dtype
        results.append(call.query.new_empty(shapes.get(name, (batch, heads, rows)), dtype=dtype))
    return results


def _autograd() -> AbstractContextManager[Any]:
    """Autograd inside a custom operation, whose kernels PyTorch runs with autograd's dispatch keys excluded."""
    include, exclude = torch._C._dispatch_tls_local_include_set(), torch._C._dispatch_tls_local_exclude_set()
    for key in ("AutogradFunctionality", "ADInplaceOrView"):
        exclude = exclude.remove(getattr(torch._C.DispatchKey, key))
    guard: AbstractContextManager[Any] = torch._C._ForceDispatchKeyGuard(include, exclude)
    return guard


@torch.library.custom_op("regard::attend_backward", mutates_args=())
def attend_backward(
    gradients: list[Tensor], live: list[int], wanted: list[int],
    tensors: list[Tensor], backend: str, spec: str, summary: str, integers: list[int], floats: list[float],
    seed: Tensor | None, starts: Tensor | None, query_start: int, key_start: int,
) -> list[Tensor]:  # fmt: skip
    """The gradients of the wanted tensors, from those of the live results."""
    plain = _Plain(backend, spec, summary, integers, floats, seed, starts, query_start, key_start)
    inputs = [x.detach().requires_grad_(i in wanted) for i, x in enumerate(tensors)]
    leaves = [inputs[i] for i in wanted]
    with _autograd(), torch.enable_grad():
        results = _results(_call(inputs, plain), backend)
        found = pull([results[i] for i in live], leaves, gradients, again=False)
    return [torch.zeros_like(x) if g is None else g.contiguous() for x, g in zip(leaves, found, strict=True)]


@attend_backward.register_fake
def _(
    gradients: list[Tensor], live: list[int], wanted: list[int],
    tensors: list[Tensor], backend: str, spec: str, summary: str, integers: list[int], floats: list[float],
    seed: Tensor | None, starts: Tensor | None, query_start: int, key_start: int,
) -> list[Tensor]:  # fmt: skip
    return [torch.empty_like(tensors[i], memory_format=torch.contiguous_format) for i in wanted]


def _save(ctx: Any, inputs: tuple[Any, ...], output: list[Tensor]) -> None:
    tensors, plain = inputs[0], _Plain(*inputs[1:])
    ctx.wanted = [i for i, x in enumerate(tensors) if x.requires_grad]
    ctx.plain = plain._replace(seed=None, starts=None)
    ctx.save_for_backward(*tensors, plain.seed, plain.starts)


def _backward(ctx: Any, gradients: list[Tensor | None]) -> tuple[Any, ...]:
    *tensors, seed, starts = ctx.saved_tensors
    plain = ctx.plain._replace(seed=seed, starts=starts)
    live = [i for i, g in enumerate(gradients) if g is not None]
    incoming = [g for g in gradients if g is not None]
    if torch.is_grad_enabled() and not torch.compiler.is_compiling():  # the gradient is to be differentiated itself
        aliases = [alias(x) for x in tensors]
        call = _call(aliases, plain)
        results = _listed(call, *compute(call))
        pulled = pull([results[i] for i in live], [aliases[i] for i in ctx.wanted], incoming, again=True)
        found = [torch.zeros_like(tensors[i]) if g is None else g for i, g in zip(ctx.wanted, pulled, strict=True)]
    else:
        found = attend_backward(incoming, live, ctx.wanted, list(tensors), *plain)
    by_input: list[Tensor | None] = [None] * len(tensors)
    for i, gradient in zip(ctx.wanted, found, strict=True):
        by_input[i] = gradient
    return (by_input, *([] if x == [] else None for x in plain))  # an empty list counts as one of tensors


attend_op.register_autograd(_backward, setup_context=_save)
