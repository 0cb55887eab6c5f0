"""Execution plans: the backend of a call, why not the others, and the predicted cost."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import final

from torch import Tensor

from regard import kernels
from regard.attention.backends.chunked import Chunked
from regard.attention.backends.native.backend import Native, differentiates_by_tiles
from regard.attention.backends.protocol import Backend, transform_refusals
from regard.attention.backends.reference import Reference
from regard.attention.backends.sdpa import SDPA, needs_mask
from regard.attention.engine.call import Call
from regard.attention.engine.empty_call import has_pairs, is_empty
from regard.attention.engine.html import table_html
from regard.attention.engine.tile_sum import any_grad
from regard.attention.engine.tracing import forward_mode, is_recorded, transforms
from regard.errors import ConfigError, UnsupportedError, nearest

BACKENDS: dict[str, Backend] = {b.name: b for b in (Native(), SDPA(), Chunked(), Reference())}
SMALL = 1 << 17  # elements per head up to which the dense computation is faster than the tiled one
MASKED = 1 << 20  # (query, key) pairs up to which PyTorch's kernel with a dense mask is faster than tiles


@final
@dataclass(frozen=True, eq=False, repr=False)
class Plan:
    """Execution plan of a call.

    Args:
        call: the checked call.
        backend: name of the backend that runs it.
        refusals: for each backend that cannot compute the call, every reason.
        passed_over: for each backend that could compute the call but is not chosen, the reason.
    """

    call: Call
    backend: str
    refusals: dict[str, tuple[str, ...]]
    passed_over: dict[str, str]

    def __repr__(self) -> str:
        return f"Plan({self.call.spec}, backend={self.backend!r})"

    @cached_property
    def density(self) -> float:
        """Fraction of (query, key) pairs that the pattern allows."""
        query_start: int | Tensor = self.call.query_start
        if not has_pairs(self.call):
            return 0.0
        return self.call.spec.pattern.density(
            self.call.query.shape[2], self.call.key.shape[2], query_start=query_start, key_start=self.call.key_start
        )

    @cached_property
    def multiply_adds(self) -> int:
        """Multiply-adds of both matrix products, forward, over the pairs that the backend computes."""
        batch, heads, _, head_dim = self.call.query.shape
        if is_empty(self.call):
            return 0
        pairs = BACKENDS[self.backend].cost(self.call).pairs
        return batch * heads * pairs * (head_dim + self.call.value.shape[3])

    @cached_property
    def working_bytes(self) -> int:
        """Peak memory of the forward pass beyond inputs and outputs, in bytes."""
        return 0 if is_empty(self.call) else BACKENDS[self.backend].cost(self.call).working_bytes

    def explain(self) -> str:
        """Description of the plan as text.

        Returns:
            One line each for the call, its inputs, the backend with its cost, and each reason against another backend.
        """
        lines = [f"{self.call.spec}", self._inputs(), f"backend {self._backend()}: {self._cost()}"]
        return "\n".join([*lines, *(f"not {name}: {reason}" for name, reason in self._others())])

    def _repr_html_(self) -> str:
        query, key, spec = self.call.query, self.call.key, self.call.spec
        rows = [
            ("computes", f"{spec}"),
            ("inputs", self._inputs()),
            ("backend", self._backend()),
            ("cost", self._cost()),
        ]
        rows += [(f"not {name}", reason) for name, reason in self._others()]
        extent = (query.shape[2], key.shape[2], self.call.query_start, self.call.key_start)
        return table_html(rows, spec.pattern, extent)

    def _inputs(self) -> str:
        q, k, v = (tuple(x.shape) for x in (self.call.query, self.call.key, self.call.value))
        return f"query {q}, key {k}, value {v}, {self.call.query.dtype}, {self.call.query.device}"

    def _backend(self) -> str:
        return f"{self.backend} ({kernels.isa()})" if self.backend == "native" else self.backend

    def _cost(self) -> str:
        work, memory = _amount(self.multiply_adds, ""), _amount(self.working_bytes, "B")
        return f"{work} multiply-adds, {memory} working memory; density {self.density:.4g}"

    def _others(self) -> Iterator[tuple[str, str]]:
        """Names of the other backends, with each reason against them."""
        for name in BACKENDS:
            for reason in self.refusals.get(name, ()):
                yield name, reason
            if name in self.passed_over:
                yield name, self.passed_over[name]


def choose(call: Call, backend: str) -> Backend:
    """Choose the backend of a call.

    Raises:
        ConfigError: an unknown name.
        UnsupportedError: the requested backend cannot compute the call; the message lists every reason.
    """
    if backend == "auto":
        return BACKENDS[_preferred(call)]
    if backend not in list(BACKENDS):  # a list: `backend` may be unhashable
        raise ConfigError(f"unknown backend {backend!r}; {nearest(backend, ['auto', *BACKENDS])}")
    reasons = BACKENDS[backend].refusals(call)
    if reasons:
        raise UnsupportedError(f"backend {backend!r} cannot compute this call: {'; '.join(reasons)}")
    return BACKENDS[backend]


def make_plan(call: Call, backend: str) -> Plan:
    """Make the plan of a call."""
    chosen = choose(call, backend).name
    refusals = {name: tuple(b.refusals(call)) for name, b in BACKENDS.items()}
    why = "another backend was requested" if backend != "auto" else f"{chosen} is expected to be faster"
    if backend == "auto" and transforms():
        why = f"a torch.func transform is active, and {chosen} consists of plain PyTorch operations"
    passed_over = {name: why for name, reasons in refusals.items() if not reasons and name != chosen}
    return Plan(call, chosen, {n: r for n, r in refusals.items() if r}, passed_over)


def _preferred(call: Call) -> str:
    """Fastest backend for the call, by L, S, E, dtype, device and the values; independent of batch size."""
    pairs = call.query.shape[2] * call.key.shape[2]
    active = bool(transforms())
    if transform_refusals() or (active and pairs <= MASKED) or (is_recorded() and (active or forward_mode())):
        return "reference"  # plain operations, which torch.func can transform repeatedly
    if not BACKENDS["native"].refusals(call):
        by_tiles = any_grad(call.tensors) and differentiates_by_tiles(call)
        return "reference" if by_tiles and _is_small(call) else "native"
    if not BACKENDS["sdpa"].refusals(call) and (pairs <= MASKED or not needs_mask(call)):
        return "sdpa"
    return "reference" if _is_small(call) else "chunked"


def _is_small(call: Call) -> bool:
    """Whether the dense computation is faster than tiles. Called last: torch.compile guards on the result."""
    return call.query.shape[2] * call.key.shape[2] * call.spec.score.width(call.query.shape[3]) <= SMALL


def _amount(count: float, unit: str) -> str:
    """Format a count with an SI prefix: 1234 is "1.23 k"."""
    for prefix in ("", "k", "M", "G", "T"):
        if count < 999.5 or prefix == "T":
            break
        count /= 1000
    return f"{count:.3g} {prefix}{unit}".rstrip()
