"""Which backend runs a call, why the others do not, and what it will cost, before it runs."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import final

from torch import Tensor

from regard import kernels
from regard.attention.backends.chunked import Chunked
from regard.attention.backends.native.backend import Native
from regard.attention.backends.protocol import Backend, transform_refusals
from regard.attention.backends.reference import Reference
from regard.attention.backends.sdpa import SDPA, needs_mask
from regard.attention.engine.call import Call
from regard.attention.engine.empty_call import has_pairs, is_empty
from regard.attention.engine.html import table_html
from regard.attention.engine.tile_sum import any_grad
from regard.attention.engine.tracing import forward_mode, recorded, transforms
from regard.errors import ConfigError, UnsupportedError, nearest

BACKENDS: dict[str, Backend] = {b.name: b for b in (Native(), SDPA(), Chunked(), Reference())}
SMALL = 1 << 17  # numbers for one head below which a dense computation is faster than tiles
MASKED = 1 << 20  # pairs up to which PyTorch's kernel with a dense mask is faster than tiles


@final
@dataclass(frozen=True, eq=False, repr=False)
class Plan:
    """What will happen in a call.

    Args:
        call: the call, checked.
        backend: the name of the backend that runs it.
        refusals: for every backend that does not compute the call, every reason.
        passed_over: for every backend that could but is not chosen, why.
    """

    call: Call
    backend: str
    refusals: dict[str, tuple[str, ...]]
    passed_over: dict[str, str]

    def __repr__(self) -> str:
        return f"Plan({self.call.spec}, backend={self.backend!r})"

    @cached_property
    def density(self) -> float:
        """The share of (query, key) pairs that the pattern lets be seen."""
        query_start: int | Tensor = self.call.query_start
        if not has_pairs(self.call):
            return 0.0
        return self.call.spec.pattern.density(
            self.call.query.shape[2], self.call.key.shape[2], query_start=query_start, key_start=self.call.key_start
        )

    @cached_property
    def multiply_adds(self) -> int:
        """Multiplications with addition in scores and mixing, forward: over the pairs that the backend computes."""
        batch, heads, _, head_dim = self.call.query.shape
        if is_empty(self.call):
            return 0
        pairs = BACKENDS[self.backend].cost(self.call).pairs
        return batch * heads * pairs * (head_dim + self.call.value.shape[3])

    @cached_property
    def working_bytes(self) -> int:
        """Memory beyond inputs and outputs, forward, at its peak, in bytes."""
        return 0 if is_empty(self.call) else BACKENDS[self.backend].cost(self.call).working_bytes

    def explain(self) -> str:
        """The plan in a few lines of text.

        Returns:
            Lines: the call, the backend and its cost, the other backends and why not.
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
        place = (query.shape[2], key.shape[2], self.call.query_start, self.call.key_start)
        return table_html(rows, spec.pattern, place)

    def _inputs(self) -> str:
        q, k, v = (tuple(x.shape) for x in (self.call.query, self.call.key, self.call.value))
        return f"query {q}, key {k}, value {v}, {self.call.query.dtype}, {self.call.query.device}"

    def _backend(self) -> str:
        return f"{self.backend} ({kernels.isa()})" if self.backend == "native" else self.backend

    def _cost(self) -> str:
        work, memory = _amount(self.multiply_adds, ""), _amount(self.working_bytes, "B")
        return f"{work} multiply-adds, {memory} to work in; density {self.density:.4g}"

    def _others(self) -> Iterator[tuple[str, str]]:
        """The other backends, and every reason why not."""
        for name in BACKENDS:
            for reason in self.refusals.get(name, ()):
                yield name, reason
            if name in self.passed_over:
                yield name, self.passed_over[name]


def choose(call: Call, backend: str) -> Backend:
    """The backend that runs a call.

    Raises:
        ConfigError: an unknown name.
        UnsupportedError: the backend asked for does not compute the call; with every reason.
    """
    if backend == "auto":
        return BACKENDS[_preferred(call)]
    if backend not in list(BACKENDS):  # a list, for what is no name may not be hashable either
        raise ConfigError(f"unknown backend {backend!r}; {nearest(backend, ['auto', *BACKENDS])}")
    reasons = BACKENDS[backend].refusals(call)
    if reasons:
        raise UnsupportedError(f"backend {backend!r} does not compute this call: {'; '.join(reasons)}")
    return BACKENDS[backend]


def make_plan(call: Call, backend: str) -> Plan:
    """The plan of a call."""
    chosen = choose(call, backend).name
    refusals = {name: tuple(b.refusals(call)) for name, b in BACKENDS.items()}
    why = "another was asked for" if backend != "auto" else f"{chosen} is expected to be faster"
    if backend == "auto" and transforms():
        why = f"a transform of torch.func is active, and {chosen} is made of plain operations"
    passed_over = {name: why for name, reasons in refusals.items() if not reasons and name != chosen}
    return Plan(call, chosen, {n: r for n, r in refusals.items() if r}, passed_over)


def _preferred(call: Call) -> str:
    """The fastest backend that computes the call, by L, S, E, dtype, device and the values; never by batch size."""
    pairs = call.query.shape[2] * call.key.shape[2]
    active = bool(transforms())
    if transform_refusals() or (active and pairs <= MASKED) or (recorded() and (active or forward_mode())):
        return "reference"  # plain operations, which torch.func transforms any number of times
    if not BACKENDS["native"].refusals(call):
        return "reference" if _differentiates_summary(call) and _is_small(call) else "native"
    if not BACKENDS["sdpa"].refusals(call) and (pairs <= MASKED or not needs_mask(call)):
        return "sdpa"
    return "reference" if _is_small(call) else "chunked"


def _is_small(call: Call) -> bool:
    """Whether a dense computation is faster than tiles. Called last: under a compiler the answer becomes a guard."""
    return call.query.shape[2] * call.key.shape[2] * call.spec.score.width(call.query.shape[3]) <= SMALL


def _differentiates_summary(call: Call) -> bool:
    """Whether gradients may flow through a summary: `native` computes such calls tile by tile."""
    return call.summary is not None and any_grad(call.tensors)


def _amount(count: float, unit: str) -> str:
    """A count with a decimal prefix: 1234 is 1.23 k."""
    for prefix in ("", "k", "M", "G", "T"):
        if count < 999.5 or prefix == "T":
            break
        count /= 1000
    return f"{count:.3g} {prefix}{unit}".rstrip()
