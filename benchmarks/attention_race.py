"""Races of attention: ours against another side in its fastest exact setting, checked before it is timed.

What is fastest is found by trying: FlexAttention's and local-attention's block, entmax's partial sort, the block of a
loop over additive scores and whether it keeps its tiles. SDPA chooses well by itself: its math path is slower at any
size.
"""

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from math import ceil, sqrt
from typing import Any, NamedTuple

import entmax
import torch
from common import spread, worst
from local_attention import LocalAttention
from torch import Tensor
from torch.nn import functional
from torch.nn.attention.flex_attention import create_block_mask, flex_attention
from torch.utils.checkpoint import checkpoint

import regard as rg
from regard.errors import UnsupportedError

LIMITS = {torch.float32: 2e-5, torch.bfloat16: 2e-2}  # of the largest number of the answer
SAMPLE = 2e-3  # seconds that one measurement takes at least: a short call is repeated
SECONDS = 2.0  # that a race takes, if that gives so many neighbors:
LEAST, MOST = 5, 41
LONG, FEWEST = 3.0, 3  # seconds of both sides together, from which on so few neighbors must do
Inputs = Sequence[Tensor]


class Wrong(Exception):
    """Two sides that do not agree: nothing to time."""


class Side(NamedTuple):
    """A way to an answer; with leaves, it is taken back to their gradients as well."""

    attend: Callable[[], Any]
    leaves: tuple[Tensor, ...] = ()

    def answer(self, incoming: Tensor) -> list[Tensor]:
        """The output and the gradients of the leaves."""
        with torch.set_grad_enabled(bool(self.leaves)):
            output = self.attend()
            output = output[0] if isinstance(output, tuple) else output
            gradients = torch.autograd.grad(output, self.leaves, incoming) if self.leaves else ()
        return [output.detach(), *gradients]

    def step(self, incoming: Tensor) -> Callable[[], object]:
        """What is timed."""
        if not self.leaves:
            return self.attend
        return lambda: torch.autograd.grad(self.attend(), self.leaves, incoming)


def agree(found: Sequence[Tensor], expected: Sequence[Tensor]) -> float:
    """The largest difference, in parts of the largest number of its tensor."""
    largest = 0.0
    for i, (x, y) in enumerate(zip(found, expected, strict=True)):
        error = worst(x, y) / max(y.abs().max().item(), 1e-30)
        if error > LIMITS[x.dtype]:
            what = f"gradient {i} of {len(found) - 1}" if i else "the output"
            raise Wrong(f"{what}, {tuple(x.shape)}, is off by {error:.2e} of its largest number")
        largest = max(largest, error)
    return largest


def race(ours: Callable[[], object], other: Callable[[], object], *, quick: bool) -> dict[str, Any]:
    """Both in turn, the order turned each time: `other` over ours, the median of neighbors, and the times in ms."""
    turns = [ours, other]
    calls = {run: max(1, ceil(SAMPLE / _seconds(run, 1))) for run in turns}
    once = sum(calls[run] * _seconds(run, calls[run]) for run in turns)
    repeats = 2 if quick else min(MOST, max(LEAST if once < LONG else FEWEST, round(SECONDS / once)))
    times: dict[Callable[[], object], list[float]] = {run: [] for run in turns}
    for _ in range(repeats):
        turns.reverse()
        for run in turns:
            times[run].append(1e3 * _seconds(run, calls[run]))
    return {
        "ratio": statistics.median(y / x for x, y in zip(times[ours], times[other], strict=True)),
        "repeats": repeats,
        "times": {"regard": spread(times[ours]), "other": spread(times[other])},
    }


def _seconds(run: Callable[[], object], calls: int) -> float:
    start = time.perf_counter()
    for _ in range(calls):
        run()
    return (time.perf_counter() - start) / calls


def fastest(sides: Mapping[str, Side], incoming: Tensor) -> tuple[str, Side]:
    """The fastest by the better of two runs of each."""
    taken = {}
    for name, side in sides.items():
        with torch.inference_mode(not side.leaves):
            run = side.step(incoming)
            taken[name] = min(_seconds(run, 1) for _ in range(2))
    best = min(taken, key=lambda name: taken[name])
    return best, sides[best]


@dataclass(frozen=True, kw_only=True)
class Match:
    """What a case races: ours against the other, ours checked against `exact`, which is the other by default."""

    ours: Side
    other: Side | dict[str, Side]  # of several settings the fastest counts
    exact: Side | None = None
    check: Callable[[], float] | None = None  # in place of a comparison with `exact`
    backend: str
    inputs: Inputs


class Case(NamedTuple):
    """A line of the results; what it takes is made when it is measured, and goes with it."""

    name: str
    unit: str
    bar: float | None
    aim: float | None
    measure: Callable[..., dict[str, Any]]  # quick=... -> "value" and what else is known

    def run(self, *, quick: bool) -> dict[str, Any]:
        torch.manual_seed(0)
        most = {} if self.unit.startswith("x ") else {"at_least": True}
        found = self.measure(quick=quick)
        return {"case": self.name, "unit": self.unit, "bar": self.bar, "aim": self.aim, **most, **found}


def raced(make: Callable[[], Match], *, slower: bool, quick: bool) -> dict[str, Any]:
    """Check, then time: how many times as fast as the other, or, if it is expected to be slower, times its time."""
    match = make()
    with torch.inference_mode(not match.ours.leaves):
        shape = match.ours.attend()
        shape = shape[0].shape if isinstance(shape, tuple) else shape.shape
    incoming = torch.randn(shape, dtype=match.inputs[0].dtype)
    with torch.inference_mode(not match.ours.leaves):
        name, other = fastest(match.other, incoming) if isinstance(match.other, dict) else ("", match.other)
        if match.check is None:
            error = agree(match.ours.answer(incoming), (match.exact or other).answer(incoming))
        else:
            error = match.check()
        timed = race(match.ours.step(incoming), other.step(incoming), quick=quick)
    ratio = timed.pop("ratio")
    return {
        "value": round(1 / ratio if slower else ratio, 3),
        "shape": [list(x.shape) for x in match.inputs],
        "dtype": str(match.inputs[0].dtype).removeprefix("torch."),
        "backend": match.backend,
        **({"setting": name} if name else {}),
        **timed,
        "error": error,
    }


def faster(name: str, bar: float | None, aim: float | None, make: Callable[[], Match]) -> Case:
    return Case(name, "times as fast", bar, aim, partial(raced, make, slower=False))


def slower(name: str, bar: float | None, aim: float | None, make: Callable[[], Match]) -> Case:
    return Case(name, "x its time", bar, aim, partial(raced, make, slower=True))


def normal(
    batch: int, heads: int, queries: int, dim: int, *, keys: int | None = None, groups: int | None = None,
    dtype: torch.dtype = torch.float32,
) -> tuple[Tensor, ...]:  # fmt: skip
    """Query, key and value from a normal distribution."""
    sizes = ((heads, queries), *(((groups or heads), keys or queries),) * 2)
    return tuple(torch.randn(batch, h, n, dim).to(dtype).requires_grad_() for h, n in sizes)


def regard(inputs: Inputs, leaves: tuple[Tensor, ...] = (), **values: Any) -> tuple[Side, str]:
    """Through the native backend, or whichever runs where that refuses; and which it is."""
    backend = "native"
    try:
        ran = rg.plan(*inputs, **values, backend=backend).backend
    except UnsupportedError:
        backend = "auto"
        ran = rg.plan(*inputs, **values).backend
    return Side(lambda: rg.attend(*inputs, **values, backend=backend), leaves), ran


def reference(inputs: Inputs, leaves: tuple[Tensor, ...] = (), **values: Any) -> Side:
    return Side(lambda: rg.attend(*inputs, **values, backend="reference"), leaves)


def sdpa(inputs: Inputs, *, causal: bool = False) -> Callable[[], Tensor]:
    return lambda: functional.scaled_dot_product_attention(*inputs, is_causal=causal)


def flex_windows(inputs: Inputs, left: int) -> dict[str, Side]:
    """Compiled FlexAttention under a causal window, by the side of the mask's blocks."""
    inputs, length = [x.detach() for x in inputs], inputs[0].shape[2]  # it has no backward on a CPU

    def visible(batch: Tensor, head: Tensor, query: Tensor, key: Tensor) -> Tensor:
        return (key <= query) & (query - key <= left)

    def side(block: int) -> Side:
        mask = create_block_mask(visible, None, None, length, length, device="cpu", BLOCK_SIZE=block)
        attend = torch.compile(flex_attention)
        return Side(lambda: attend(*inputs, block_mask=mask))

    return {f"compiled FlexAttention, blocks of {block}": side(block) for block in (64, 128)}


def local_windows(inputs: Inputs, left: int, leaves: tuple[Tensor, ...]) -> dict[str, Side]:
    """local-attention under an exact causal window, by its block: smaller ones compute less of what is hidden."""

    def side(blocks: int) -> Side:
        attend = LocalAttention(
            left // blocks, causal=True, look_backward=blocks, exact_windowsize=True, use_rotary_pos_emb=False
        )
        return Side(lambda: attend(*inputs), leaves)

    return {f"local-attention, blocks of {left // n}": side(n) for n in (1, 2, 4)}


def broadcasting(query: Tensor, key: Tensor, value: Tensor, vector: Tensor) -> Tensor:
    """Additive attention with every sum of a query and a key at once; tanh in place, which saves a copy of them."""
    hidden_BHLSE = (query[:, :, :, None] + key[:, :, None]).tanh_()
    return torch.softmax(hidden_BHLSE @ vector, -1) @ value


def additive_loop(inputs: Inputs, vector: Tensor, rows: int, *, again: bool) -> Tensor:
    """The same for one head and some rows at a time, its tiles kept for the backward or computed again there."""
    heads = []
    for query, key, value in zip(*(x.split(1, 1) for x in inputs), strict=True):
        parts = [
            checkpoint(broadcasting, part, key, value, vector, use_reentrant=False, preserve_rng_state=False)
            if again
            else broadcasting(part, key, value, vector)
            for part in query.split(rows, 2)
        ]
        heads.append(torch.cat(parts, 2))
    return torch.cat(heads, 1)


def additive_loops(inputs: Inputs, vector: Tensor, leaves: tuple[Tensor, ...]) -> dict[str, Side]:
    """The loop by its block."""

    def side(rows: int, again: bool) -> Side:
        return Side(lambda: additive_loop(inputs, vector, rows, again=again), leaves)

    kept = {f"loop, {rows} rows": side(rows, False) for rows in (4, 16, 64)}
    recomputed = {f"loop, {rows} rows, recomputed": side(rows, True) for rows in (4, 16)}
    return {**kept, **recomputed} if leaves else kept


def entmax_dense(name: str, inputs: Inputs, leaves: tuple[Tensor, ...]) -> dict[str, Side]:
    """Dense attention under the `entmax` package's sparsemax or entmax15, by how far it sorts at first."""
    weigh = getattr(entmax, name)
    query, key, value = inputs

    def side(k: int | None) -> Side:
        scale = 1 / sqrt(query.shape[-1])
        return Side(lambda: weigh(query @ key.transpose(-1, -2) * scale, dim=-1, k=k) @ value, leaves)

    sorted_first = [None, *(k for k in (16, 32, 64, 128) if k < key.shape[2])]
    return {f"entmax.{name}, k={k}": side(k) for k in sorted_first}


def fastest_product(dtype: torch.dtype, sizes: Sequence[int]) -> tuple[str, Callable[[], Tensor], int]:
    """Of square matrices, as PyTorch multiplies or on a weight that oneDNN has laid out; and its operations."""
    found: dict[str, tuple[Callable[[], Tensor], int]] = {}
    for size in sizes:
        a, b = (torch.randn(size, size).to(dtype) for _ in range(2))
        packed = torch.ops.mkldnn._reorder_linear_weight(b, size)
        found[f"torch.mm of {size}"] = partial(torch.mm, a, b), 2 * size**3
        multiply = partial(torch.ops.mkldnn._linear_pointwise, a, packed, None, "none", [], "")
        found[f"oneDNN, packed, of {size}"] = multiply, 2 * size**3
    rates = {name: max(count / _seconds(run, 1) for _ in range(5)) for name, (run, count) in found.items()}
    best = max(rates, key=lambda name: rates[name])
    return best, *found[best]
