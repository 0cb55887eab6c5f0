"""The matrix: what can be combined, and which combinations are run.

A case names one entry of each axis. The entries are functions of the sizes and of a source of tensors, so that the
same case can be built of float64 tensors, of half ones, or of poisoned ones.
"""

import random
import zlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from functools import cache
from itertools import combinations, product
from typing import Any

import torch
from torch import Tensor

import regard as rg

HALVES = (torch.float16, torch.bfloat16)


class Source:
    """Tensors by name: drawn when first asked for, the same again afterwards, or given beforehand."""

    def __init__(self, seed: int, given: dict[str, Tensor] | None = None) -> None:
        self.generator = torch.Generator().manual_seed(seed)
        self.tensors = dict(given or {})

    def __call__(self, name: str, *shape: int, low: float = -1.0, high: float = 1.0) -> Tensor:
        """Floats that take part in the derivatives."""
        return self._get(
            name, lambda: torch.rand(shape, generator=self.generator, dtype=torch.float64) * (high - low) + low
        )

    def whole(self, name: str, *shape: int, low: int, high: int) -> Tensor:
        """Integers low <= x < high."""
        return self._get(name, lambda: torch.randint(low, high, shape, generator=self.generator))

    def mask(self, name: str, *shape: int, share: float = 0.7) -> Tensor:
        """Booleans, `share` of them True."""
        return self._get(name, lambda: torch.rand(shape, generator=self.generator) < share)

    def _get(self, name: str, draw: Callable[[], Tensor]) -> Tensor:
        if name not in self.tensors:
            self.tensors[name] = draw()
        return self.tensors[name]


@dataclass(frozen=True, kw_only=True)
class Edge:
    """The sizes of a call, each a prime of its own where the case allows it, and what is special about it."""

    B: int = 2
    H: int = 3
    G: int = 3
    L: int = 13
    S: int = 13
    E: int = 5
    V: int = 5
    query_start: int | tuple[int, ...] | None = None
    key_start: int = 0
    layout: str = "contiguous"  # "transposed": stored as (B, L, H, E); "expanded": strides of 0
    empty: bool = False  # some rows see nothing, some keys are seen by nobody
    poison: bool = False  # and they hold NaN and Inf
    dropout: float = 0.0
    float32_parameters: bool = False  # beside half inputs

    @property
    def first(self) -> int:
        """The least position of a query."""
        start = self.key_start + self.S - self.L if self.query_start is None else self.query_start
        return min(start) if isinstance(start, tuple) else start

    @property
    def end(self) -> int:
        """A bound on all positions."""
        starts = self.query_start if isinstance(self.query_start, tuple) else (self.first,)
        return max(self.key_start + self.S, *starts, max(starts) + self.L)


EDGES: dict[str, Edge] = {
    "plain": Edge(),
    "more_keys": Edge(L=7, S=19),
    "more_queries": Edge(L=19, S=11),
    "one_query": Edge(L=1, S=17),
    "one_key": Edge(L=7, S=1),
    "empty_rows": Edge(empty=True),
    "grouped": Edge(H=6, G=2, L=11),
    "one_kv_head": Edge(G=1, L=7, V=11),
    "wide_values": Edge(L=11, E=3, V=19),
    "large_heads": Edge(L=7, E=67, V=67),
    "tiny_heads": Edge(L=7, E=2, V=1),
    "transposed": Edge(L=7, layout="transposed"),
    "expanded": Edge(L=7, layout="expanded"),
    "poisoned": Edge(empty=True, poison=True),
    "poisoned_groups": Edge(H=6, G=2, L=11, empty=True, poison=True, layout="transposed"),
    "poisoned_starts": Edge(L=7, S=17, query_start=(0, 11), empty=True, poison=True, V=3),
    "dropout": Edge(L=11, S=17, dropout=0.3),
    "dropout_poisoned": Edge(H=6, G=2, empty=True, poison=True, dropout=0.2),
    "query_start": Edge(L=7, query_start=2),
    "query_starts": Edge(L=5, S=17, query_start=(3, 11)),
    "key_start": Edge(L=7, S=11, key_start=4),
    "rolling": Edge(L=3, S=11, key_start=5, query_start=(9, 13)),
    "float32_parameters": Edge(L=11, S=17, float32_parameters=True),
    "long": Edge(B=1, H=2, G=1, L=71, S=83, V=3),
}

# Large enough for int8-split products, which the native backend uses for float32 where the processor has int8 tiles.
LARGE: dict[str, Edge] = {
    "large": Edge(B=1, H=2, G=1, L=73, S=83, E=61, V=53),
    "large_poisoned": Edge(H=2, G=1, L=67, S=41, E=53, V=61, empty=True, poison=True, layout="transposed"),
    "large_starts": Edge(H=2, G=2, L=37, S=139, E=61, V=59, query_start=(3, 101), dropout=0.2),
    "large_expanded": Edge(H=2, G=2, L=131, S=43, E=59, V=61, layout="expanded", key_start=4),
}

Entry = Callable[[Edge, Source], Any]


def _location_aware(s: Edge, t: Source, previous: tuple[int, ...], *heads: int) -> rg.LocationAware:
    return rg.LocationAware.from_previous(
        t("previous", *previous, low=0.0),
        filters=t("filters", *heads, 2, 3),
        projection=t("projection", *heads, 2, s.E),
        vector=t("vector", *heads, s.E),
    )


SCORES: dict[str, Entry] = {
    "dot": lambda s, t: rg.Dot(),
    "dot_scaled": lambda s, t: rg.Dot(scale=1.6 / s.E**0.5),
    "dot_capped": lambda s, t: rg.Dot(scale=0.9, softcap=1.5),
    "dot_per_head": lambda s, t: rg.Dot(scale=t("scale", s.H, low=0.3)),
    "dot_learned": lambda s, t: rg.Dot(scale=t("scale", low=0.3), softcap=2.0),
    "cosine": lambda s, t: rg.Cosine(3.0),
    "cosine_per_head": lambda s, t: rg.Cosine(t("scale", s.H, low=1.0, high=4.0)),
    "bilinear": lambda s, t: rg.Bilinear(t("weight", s.E, s.E + 2, low=-2 / s.E, high=2 / s.E)),
    "bilinear_per_head": lambda s, t: rg.Bilinear(t("weight", s.H, s.E, s.E + 2, low=-2 / s.E, high=2 / s.E)),
    "additive_tanh": lambda s, t: rg.Additive(t("vector", s.E)),
    "additive_relu": lambda s, t: rg.Additive(t("vector", s.H, s.E), activation="relu"),
    "additive_sigmoid": lambda s, t: rg.Additive(t("vector", s.H, s.E, high=3.0), activation="sigmoid"),
    "location_aware": lambda s, t: _location_aware(s, t, (s.B, s.H, 1, s.S)),
    "location_aware_per_head": lambda s, t: _location_aware(s, t, (s.B, 1, 1, s.S), s.H),
    "location_aware_by_query": lambda s, t: _location_aware(s, t, (s.H, s.L, s.S)),
    "location": lambda s, t: rg.Location(t("weight", s.key_start + s.S + 2, s.E)),
    "location_per_head": lambda s, t: rg.Location(t("weight", s.H, s.key_start + s.S, s.E)),
}


def _gaussian(s: Edge, t: Source, *heads: int) -> rg.Gaussian:
    center = t("center", s.B, s.H, s.L, low=s.key_start, high=s.key_start + s.S)
    return rg.Gaussian(center=center, sigma=t("sigma", *heads, low=3.0, high=6.0) if heads else 4.0)


NORMALIZERS: dict[str, Entry] = {
    "softmax": lambda s, t: rg.Softmax(),
    "softmax_sink": lambda s, t: rg.Softmax(sink=t("sink", s.H)),
    "softmax_prior": lambda s, t: rg.Softmax(prior=_gaussian(s, t)),
    "softmax_sink_prior": lambda s, t: rg.Softmax(sink=t("sink", s.H), prior=_gaussian(s, t, s.H)),
    "sparsemax": lambda s, t: rg.Sparsemax(),
    "entmax": lambda s, t: rg.Entmax(1.5),
    "entmax_per_head": lambda s, t: rg.Entmax(t("alpha", s.H, low=1.2, high=2.3)),
    "entmax_sparse": lambda s, t: rg.Entmax(2.5),
    "sigmoid": lambda s, t: rg.Sigmoid(-1.5),
    "sigmoid_per_head": lambda s, t: rg.Sigmoid(t("bias_of_sigmoid", s.H, low=-3.0)),
    "normalized_sigmoid": lambda s, t: rg.NormalizedSigmoid(),
    "normalized_sigmoid_per_head": lambda s, t: rg.NormalizedSigmoid(t("bias_of_sigmoid", s.H, low=-3.0)),
    "hard": lambda s, t: rg.Hard(),
    "hard_straight_through": lambda s, t: rg.Hard(sample=rg.StraightThrough(), temperature=0.7),
    "hard_reinforce": lambda s, t: rg.Hard(sample=rg.Reinforce()),
    "hard_gumbel": lambda s, t: rg.Hard(sample=rg.Gumbel(), temperature=t("temperature", s.H, low=0.6, high=1.4)),
}
CHOICES = ["hard", "hard_straight_through", "hard_reinforce"]  # of one key a row
NOT_NATIVE = ["hard_gumbel", *(name for name in NORMALIZERS if name.startswith("normalized_sigmoid"))]


def _layout(s: Edge, t: Source, *heads: int) -> rg.BlockSparse:
    blocks = -(-s.end // 4)
    return rg.BlockSparse(t.mask("layout", *heads, blocks, blocks), block_size=4)


def _around(s: Edge, t: Source) -> rg.Around:
    quarters = t.whole("quarters", s.B, s.H, s.L, low=4 * s.key_start, high=4 * (s.key_start + s.S))
    return rg.Around(quarters / 4, left=3.25, right=2.0)  # exact in every float type, the bounds met exactly too


def _lengths(s: Edge, t: Source) -> rg.KeyLengths:
    return rg.KeyLengths(t.whole("lengths", s.B, low=s.key_start, high=s.key_start + s.S + 1))


def _documents(s: Edge, t: Source) -> rg.Documents:
    ids = (t.whole(name, s.B, n, low=0, high=4).sort(-1).values for name, n in (("query_ids", s.L), ("key_ids", s.S)))
    return rg.Documents(*ids)


PATTERNS: dict[str, Entry] = {
    "full": lambda s, t: rg.Full(),
    "causal": lambda s, t: rg.Causal(),
    "window": lambda s, t: rg.SlidingWindow(left=4, right=1),
    "dilated": lambda s, t: rg.Dilated(2, left=3, right=1),
    "strided": lambda s, t: rg.Strided(3),
    "block_sparse": lambda s, t: _layout(s, t),
    "block_sparse_per_head": lambda s, t: _layout(s, t, s.H),
    "global_tokens": lambda s, t: rg.GlobalTokens([0, 6, 7, 12]),
    "random_blocks": lambda s, t: rg.RandomBlocks(seed=5, length=s.end, count=min(2, -(-s.end // 3)), block_size=3),
    "prefix": lambda s, t: rg.PrefixLM(t.whole("prefix", s.B, low=s.key_start, high=s.key_start + s.S + 1)),
    "documents": lambda s, t: _documents(s, t),
    "key_lengths": lambda s, t: _lengths(s, t),
    "mask": lambda s, t: rg.Mask(t.mask("mask", s.B, s.H, s.L, s.S)),
    "mask_of_keys": lambda s, t: rg.Mask(t.mask("mask", s.B, 1, 1, s.S)),
    "around": lambda s, t: _around(s, t),
    "and": lambda s, t: rg.Causal() & rg.SlidingWindow(left=5) & _lengths(s, t),
    "or": lambda s, t: rg.SlidingWindow(left=1, right=1) | rg.GlobalTokens([0]) | rg.Strided(5),
    "not": lambda s, t: ~rg.Dilated(2, left=4, right=4),
    "nested": lambda s, t: (rg.Causal() & ~_around(s, t) | rg.GlobalTokens(range(2))) & ~_documents(s, t),
}


def _hidden_entries(s: Edge, t: Source) -> rg.TensorBias:
    hidden = ~t.mask("hidden", s.H, s.L, s.S)
    hidden[0, 0] = True  # a row that sees nothing
    return rg.TensorBias(t("bias", s.H, s.L, s.S).masked_fill(hidden, -torch.inf))


BIASES: dict[str, Entry] = {
    "none": lambda s, t: None,
    "tensor": lambda s, t: rg.TensorBias(t("bias", s.B, s.H, s.L, s.S)),
    "tensor_per_head": lambda s, t: rg.TensorBias(t("bias", s.H, s.L, s.S)),
    "tensor_of_keys": lambda s, t: rg.TensorBias(t("bias", s.B, 1, 1, s.S)),
    "tensor_one_row": lambda s, t: rg.TensorBias(t("bias", s.S)),
    "tensor_hiding": _hidden_entries,
    "alibi": lambda s, t: rg.ALiBi(t("slopes", s.H, low=0.05, high=0.5)),
    "relative": lambda s, t: rg.RelativeBias(t("table", 12, s.H), max_distance=20),
    "relative_before": lambda s, t: rg.RelativeBias(t("table", 6, s.H), bidirectional=False, max_distance=11),
}

BACKENDS = ("reference", "chunked", "sdpa", "native")
DTYPES = {str(d).removeprefix("torch."): d for d in (torch.float64, torch.float32, torch.bfloat16, torch.float16)}
TILES = (0, 0, 50, 300)  # numbers in a tile of the chunked backend, so that small cases have many; 0 leaves its own


@dataclass(frozen=True)
class Case:
    """One entry of each axis."""

    backend: str
    score: str
    normalizer: str
    pattern: str
    bias: str = "none"
    dtype: str = "float64"
    edge: str = "plain"
    tile: int = 0

    @property
    def tile_size(self) -> int:
        """Numbers in a tile; 0 for the default; more in long cases, so that whole blocks of rows are cut as well."""
        return self.tile * 50 if self.edge == "long" else self.tile

    def __str__(self) -> str:
        parts = [self.backend, self.score, self.normalizer, self.pattern, self.bias, self.dtype, self.edge]
        return "-".join(parts) + f"-tile{self.tile}" * bool(self.tile)

    def pairs(self) -> set[tuple[Any, ...]]:
        """The pairs of entries that the case covers."""
        entries = [(name, getattr(self, name)) for name in self.__dataclass_fields__]
        return set(combinations(entries, 2))


@dataclass
class Problem:
    """A case with its tensors, in float64 but of values that the case's dtype holds."""

    case: Case
    edge: Edge
    tensors: dict[str, Tensor] = field(default_factory=dict)
    seed: int = 0

    @staticmethod
    def of(case: Case, attempt: int = 0) -> "Problem":
        edge, dtype = (EDGES | LARGE)[case.edge], DTYPES[case.dtype]
        if case.pattern.startswith("block_sparse") and edge.first < 0:
            edge = replace(edge, query_start=0)  # its layout covers positions from 0 on
        problem = Problem(case, edge, seed=zlib.crc32(str(case).encode()) + attempt)
        source = Source(problem.seed)
        problem.build(source)
        for name, x in source.tensors.items():
            problem.tensors[name] = x.to(problem.dtype_of(name, dtype)).double() if x.is_floating_point() else x
        return problem

    def dtype_of(self, name: str, dtype: torch.dtype) -> torch.dtype:
        """What a tensor is in a case of this dtype."""
        inputs = ("query", "key", "value", "incoming")
        keep = self.edge.float32_parameters and dtype in HALVES and name not in inputs
        return torch.float32 if keep else dtype

    def leaves(self, dtype: torch.dtype, *, exact: bool = False) -> dict[str, Tensor]:
        """New tensors to differentiate by; with `exact`, parameters are of the given dtype too."""
        return {
            name: x.to(dtype if exact else self.dtype_of(name, dtype)).clone().requires_grad_(name != "incoming")
            if x.is_floating_point()
            else x
            for name, x in self.tensors.items()
        }

    def build(self, t: Source) -> dict[str, Any]:
        """The arguments of `regard.attend`; the gradient that comes in is drawn too."""
        s, case = self.edge, self.case
        key_dim = s.E + 2 if case.score.startswith("bilinear") else s.E
        pattern = PATTERNS[case.pattern](s, t)
        if s.empty:
            pattern = pattern & rg.Mask(self._seen())
        start = torch.tensor(s.query_start) if isinstance(s.query_start, tuple) else s.query_start
        self._tensor(t, "incoming", s.H, s.L, s.V)
        return {
            "query": self._tensor(t, "query", s.H, s.L, s.E),
            "key": self._tensor(t, "key", s.G, s.S, key_dim),
            "value": self._tensor(t, "value", s.G, s.S, s.V),
            "score": SCORES[case.score](s, t),
            "normalizer": NORMALIZERS[case.normalizer](s, t),
            "pattern": pattern,
            "bias": BIASES[case.bias](s, t),
            "dropout": s.dropout,
            "seed": 2**40 + self.seed,  # of dropout, and of normalizers that sample
            "query_start": start,
            "key_start": s.key_start,
        }

    def arguments(self, leaves: dict[str, Tensor]) -> dict[str, Any]:
        """The arguments of `regard.attend`, made of these tensors."""
        return self.build(Source(0, leaves))

    def incoming(self, leaves: dict[str, Tensor]) -> Tensor:
        """The output's gradient."""
        s = self.edge
        return self._tensor(Source(0, leaves), "incoming", s.H, s.L, s.V)

    def view(self, x: Tensor, heads: int) -> Tensor:
        """A stored tensor in the operator's layout."""
        if self.edge.layout == "transposed":
            return x.transpose(1, 2)
        return x.expand(self.edge.B, heads, -1, -1)

    def _tensor(self, t: Source, name: str, heads: int, rows: int, columns: int) -> Tensor:
        shape = {
            "contiguous": (self.edge.B, heads, rows, columns),
            "transposed": (self.edge.B, rows, heads, columns),
            "expanded": (self.edge.B if name == "query" else 1, heads if name == "key" else 1, rows, columns),
        }[self.edge.layout]
        return self.view(t(name, *shape, low=-2.0, high=2.0), heads)

    def _seen(self) -> Tensor:
        """A row of every head, a key, and all that one head of one sequence sees, are hidden."""
        s = self.edge
        seen = torch.ones(s.B, s.H, s.L, s.S, dtype=torch.bool)
        seen[:, :, 1] = seen[..., 2] = seen[0, 0] = False
        return seen


@cache
def full() -> tuple[Case, ...]:
    """Every (backend, score, normalizer, pattern), the other axes drawn; and what only sdpa's few leave room for."""
    shuffle = random.Random(1).shuffle
    cores = list(product(BACKENDS, SCORES, NORMALIZERS, PATTERNS))
    cores += [("sdpa", score, "softmax", p) for score in ("dot", "dot_scaled") for p in PATTERNS for _ in range(12)]
    decks: dict[tuple[Any, ...], list[Any]] = {}

    def deal(*key: Any, deck: Iterable[Any]) -> Any:
        """The next of a shuffled deck, so that each key soon meets all its entries."""
        left = decks.setdefault(key, [])
        if not left:
            left += deck
            shuffle(left)
        return left.pop()

    cases = {}
    for core in cores:
        backend, _, _, pattern = core
        rest = deal("bias", deck=BIASES), deal("dtype", deck=DTYPES), deal(backend, pattern, deck=EDGES)
        tile = deal("tile", deck=TILES) if backend == "chunked" else 0
        cases[Case(*core, *rest, tile)] = None
    return tuple(cases)


def refused(case: Case) -> bool:
    """Whether the plan should refuse the case's backend."""
    if case.backend == "native":
        by_query = case.score == "location_aware_by_query" and (EDGES | LARGE)[case.edge].L > 1
        return case.normalizer in NOT_NATIVE or by_query
    plain = case.score in ("dot", "dot_scaled") and case.normalizer == "softmax" and not EDGES[case.edge].dropout
    return case.backend == "sdpa" and not plain


@cache
def sample() -> tuple[Case, ...]:
    """A covering sample of `full`: each backend meets every pair of entries that it meets there."""
    chosen: list[Case] = []
    for backend in BACKENDS:
        chosen += cover([c for c in full() if c.backend == backend and not refused(c)])
    return (*chosen, *[c for c in full() if refused(c)][::29])


def cover(cases: Iterable[Case]) -> Iterator[Case]:
    """Few cases that cover all pairs of all: those first that add many."""
    left = [(case, case.pairs()) for case in cases]
    covered: set[tuple[Any, ...]] = set()
    for least in (20, 12, 8, 6, 4, 3, 2, 1):
        for case, pairs in left:
            if len(pairs - covered) >= least:
                covered |= pairs
                yield case


@cache
def large() -> tuple[Case, ...]:
    """Each normalizer with each pattern, large, native and in float32, the other axes in turn."""
    scores = [name for name in SCORES if not name.startswith(("additive", "location_aware"))]
    cases = []
    normalizers = [name for name in NORMALIZERS if name not in NOT_NATIVE]
    for i, (normalizer, pattern) in enumerate(product(normalizers, PATTERNS)):
        rest = scores[i % len(scores)], normalizer, pattern, list(BIASES)[i % len(BIASES)]
        cases.append(Case("native", *rest, "float32", list(LARGE)[i % len(LARGE)]))
    return tuple(cases)


@cache
def summarized() -> tuple[Case, ...]:
    """Each normalizer with each pattern on the backends that have summaries, the other axes in turn."""
    scores, dtypes, edges = list(SCORES), list(DTYPES), list(EDGES)
    cases = []
    for i, (normalizer, pattern) in enumerate((n, p) for n in NORMALIZERS for p in PATTERNS):
        rest = scores[i % len(scores)], normalizer, pattern, ("none", "tensor_hiding", "alibi")[i % 3]
        tile = TILES[i % len(TILES)]
        cases.append(Case("reference", *rest, dtypes[i % 4], edges[(5 * i) % len(edges)]))
        cases.append(Case("chunked", *rest, dtypes[(i + i // 4) % 4], edges[(7 * i + 3) % len(edges)], tile))
        native = Case("native", *rest, dtypes[(i + i // 8) % 4], edges[(11 * i + 5) % len(edges)])
        if not refused(native):
            cases.append(native)
    return tuple(cases)
