"""Attention tile by tile (`tiled.py`) as a backend, in eager code and in compiled graphs.

Which tiles there are may depend on data, so in a compiled graph the whole backend is one operation that no compiler
looks into: forward computes; backward computes again, with gradients.
"""

from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import fields
from typing import Any, NamedTuple, final

import torch
from torch import Tensor

from regard.attention.backends.protocol import Cost
from regard.attention.call import Call
from regard.attention.literal import from_text, to_text
from regard.attention.summary import Seen, Summary
from regard.attention.tile_sum import pull
from regard.attention.tiled import compute
from regard.attention.tiling import cut


@final
class Chunked:
    """Everything, in linear memory, by plain PyTorch operations."""

    name = "chunked"

    def refusals(self, call: Call) -> list[str]:
        return []

    def cost(self, call: Call) -> Cost:
        areas = [(b.rows.stop - b.rows.start) * t.width for b in cut(call) for t in b.tiles]
        batch, heads, _, head_dim = call.query.shape
        alive = 2 + call.spec.score.width(head_dim)
        return Cost(sum(areas), batch * heads * max(areas, default=0) * alive * call.dtype.itemsize)

    def run(self, call: Call) -> tuple[Tensor, Seen | None]:
        return _run_in_graph(call) if torch.compiler.is_compiling() else compute(call)


class _Plain(NamedTuple):
    """What a call holds besides its differentiable tensors, in the types that a graph can carry."""

    spec: str
    summary: str
    integers: list[int]  # of the spec, then of the summary
    floats: list[float]
    seed: Tensor | None
    starts: Tensor | None
    query_start: int
    key_start: int


def _run_in_graph(call: Call) -> tuple[Tensor, Seen | None]:
    """The same, as one operation."""
    spec, integers, floats = to_text(call.spec)
    summary, more, _ = to_text(call.summary)
    starts = call.query_start if isinstance(call.query_start, Tensor) else None
    query_start = 0 if isinstance(call.query_start, Tensor) else call.query_start
    plain = _Plain(spec, summary, [*integers, *more], floats, call.seed, starts, query_start, call.key_start)
    tensors = [call.query, call.key, call.value, *(leaf.tensor for leaf in call.spec.held)]
    output, *summaries = chunked(tensors, *plain)
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


def _results(call: Call) -> list[Tensor]:
    output, seen = compute(call)
    names = [] if call.summary is None else _names(call.summary)
    return [output, *(getattr(seen, name) for name in names)]


@torch.library.custom_op("regard::chunked", mutates_args=())
def chunked(
    tensors: list[Tensor], spec: str, summary: str, integers: list[int], floats: list[float],
    seed: Tensor | None, starts: Tensor | None, query_start: int, key_start: int,
) -> list[Tensor]:  # fmt: skip
    """The output and then the summaries asked for; `tensors` are query, key, value and what the values hold."""
    plain = _Plain(spec, summary, integers, floats, seed, starts, query_start, key_start)
    with torch.no_grad():
        return [x.contiguous() for x in _results(_call(tensors, plain))]


@chunked.register_fake
def _(
    tensors: list[Tensor], spec: str, summary: str, integers: list[int], floats: list[float],
    seed: Tensor | None, starts: Tensor | None, query_start: int, key_start: int,
) -> list[Tensor]:  # fmt: skip
    call = _call(tensors, _Plain(spec, summary, integers, floats, seed, starts, query_start, key_start))
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


@torch.library.custom_op("regard::chunked_backward", mutates_args=())
def chunked_backward(
    gradients: list[Tensor], live: list[int], wanted: list[int],
    tensors: list[Tensor], spec: str, summary: str, integers: list[int], floats: list[float],
    seed: Tensor | None, starts: Tensor | None, query_start: int, key_start: int,
) -> list[Tensor]:  # fmt: skip
    """The gradients of the wanted tensors, from those of the live results."""
    plain = _Plain(spec, summary, integers, floats, seed, starts, query_start, key_start)
    inputs = [x.detach().requires_grad_(i in wanted) for i, x in enumerate(tensors)]
    leaves = [inputs[i] for i in wanted]
    with _autograd(), torch.enable_grad():
        results = _results(_call(inputs, plain))
        found = pull([results[i] for i in live], leaves, gradients, again=False)
    return [torch.zeros_like(x) if g is None else g.contiguous() for x, g in zip(leaves, found, strict=True)]


@chunked_backward.register_fake
def _(
    gradients: list[Tensor], live: list[int], wanted: list[int],
    tensors: list[Tensor], spec: str, summary: str, integers: list[int], floats: list[float],
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
    found = chunked_backward([g for g in gradients if g is not None], live, ctx.wanted, list(tensors), *plain)
    by_input: list[Tensor | None] = [None] * len(tensors)
    for i, gradient in zip(ctx.wanted, found, strict=True):
        by_input[i] = gradient
    return (by_input, *([] if x == [] else None for x in plain))  # an empty list counts as one of tensors


chunked.register_autograd(_backward, setup_context=_save)
