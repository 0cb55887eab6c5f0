"""Misuses that a call finds: see `cases.py`."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

import regard as rg
from regard.errors import ConfigError, ShapeError, UnsupportedError

# 2 sequences, 4 query heads on 2 key heads, 5 queries, 7 keys
QUERY, KEY, VALUE = torch.zeros(2, 4, 5, 8), torch.zeros(2, 2, 7, 8), torch.zeros(2, 2, 7, 3)
Case = tuple[str, Callable[[], object], type[Exception], str]


def given(**options: Any) -> Callable[[], object]:
    return lambda: rg.attend(QUERY, KEY, VALUE, **options)


def inputs(query: Any = QUERY, key: Any = KEY, value: Any = VALUE, **options: Any) -> Callable[[], object]:
    return lambda: rg.attend(query, key, value, **options)


def booleans(*shape: int, device: str = "cpu") -> Tensor:
    return torch.ones(shape, dtype=torch.bool, device=device)


INPUTS: list[Case] = [
    ("inputs-3d", inputs(QUERY[0]), ShapeError, "inputs need four dimensions, query (batch, heads, queries, head_dim)"),
    ("inputs-3d-sizes", inputs(QUERY[0]), ShapeError, "got query (4, 5, 8), key (2, 2, 7, 8), value (2, 2, 7, 3)"),
    ("inputs-none", inputs(key=None), ShapeError, "inputs must be dense tensors; got Tensor, NoneType, Tensor"),
    ("inputs-sparse", inputs(value=VALUE.to_sparse()), ShapeError, "Tensor of layout torch.sparse_coo"),
    (
        "inputs-dtypes",
        inputs(key=KEY.double()),
        ShapeError,
        "query torch.float32, key torch.float64, value torch.float32",
    ),
    ("inputs-dtypes-remedy", inputs(key=KEY.double()), ShapeError, "differ in dtype"),
    ("inputs-devices", inputs(key=KEY.to("meta")), ShapeError, "query cpu, key meta, value cpu; move one"),
    (
        "inputs-integers",
        inputs(QUERY.long(), KEY.long(), VALUE.long()),
        ShapeError,
        "inputs are torch.int64; cast them",
    ),
    (
        "inputs-float8",
        inputs(*(x.to(torch.float8_e4m3fn) for x in (QUERY, KEY, VALUE))),
        ShapeError,
        "inputs are torch.float8_e4m3fn; cast them to one of torch.float32",
    ),
    (
        "inputs-no-key-heads",
        inputs(key=KEY[:, :0], value=VALUE[:, :0]),
        ShapeError,
        "4 query heads and 0 key heads: the number of query heads must be a multiple of the",
    ),
    (
        "inputs-batch",
        inputs(key=KEY[:1], value=VALUE[:1]),
        ShapeError,
        "batch sizes differ: query (2, 4, 5, 8), key (1, ",
    ),
    (
        "inputs-lengths",
        inputs(value=VALUE[:, :, :6]),
        ShapeError,
        "key and value differ in heads or length: query",
    ),
    (
        "inputs-heads",
        inputs(key=torch.zeros(2, 3, 7, 8), value=torch.zeros(2, 3, 7, 3)),
        ShapeError,
        "4 query heads and 3 key heads: the number of query heads must be a multiple of the",
    ),
    ("head-dim-dot", inputs(key=torch.zeros(2, 2, 7, 9)), ShapeError, "Dot: the query's head_dim is 8 and the key's 9"),
    (
        "head-dim-cosine",
        inputs(key=torch.zeros(2, 2, 7, 9), score=rg.Cosine(1.0)),
        ShapeError,
        "Cosine: the query's head_dim is 8 and the key's 9; they must be equal (Bilinear scores vectors of different",
    ),
]

VALUES: list[Case] = [
    (
        "score-text",
        given(score="dot"),
        ConfigError,
        "score='dot' is not a Score; did you mean 'Dot'? Known: Dot, Cosine",
    ),
    ("score-class", given(score=rg.Cosine), ConfigError, "is not a Score; did you mean Cosine(...)?"),
    (
        "normalizer-none",
        given(normalizer=None),
        ConfigError,
        "normalizer=None is not a Normalizer; known: Softmax, Entm",
    ),
    (
        "pattern-tensor",
        given(pattern=booleans(5, 7)),
        ConfigError,
        "pattern=Tensor(torch.bool, (5, 7)) is not a Pattern",
    ),
    (
        "pattern-remedy",
        given(pattern=booleans(5, 7)),
        ConfigError,
        "wrap a boolean tensor in Mask(tensor), True =",
    ),
    ("bias-text", given(bias="alibi"), ConfigError, "bias='alibi' is not a Bias; did you mean 'ALiBi'?"),
    (
        "bias-boolean-tensor",
        given(bias=booleans(5, 7)),
        ShapeError,
        "for booleans use pattern=Mask(...), True = may attend",
    ),
    (
        "bilinear-size",
        given(score=rg.Bilinear(torch.ones(8, 9))),
        ShapeError,
        "weight has shape (8, 9), but the query's",
    ),
    (
        "additive-size",
        given(score=rg.Additive(torch.ones(9))),
        ShapeError,
        "vector has shape (9,), but queries and keys",
    ),
    (
        "location-aware-size",
        given(score=rg.LocationAware(torch.ones(8), torch.ones(7, 2), torch.ones(2, 9))),
        ShapeError,
        "projection has shape (2, 9), but queries and keys have head_dim 8; expected a projection (..., 8)",
    ),
    (
        "location-aware-vector",
        given(score=rg.LocationAware(torch.ones(9), torch.ones(7, 2), torch.ones(2, 9))),
        ShapeError,
        "LocationAware: vector has shape (9,), but queries and keys have head_dim 8",
    ),
    (
        "location-aware-keys",
        given(score=rg.LocationAware(torch.ones(8), torch.ones(6, 2), torch.ones(2, 8))),
        ShapeError,
        "LocationAware.features has shape (6, 2), which does not broadcast to this call's 7 keys",
    ),
    (
        "location-size",
        given(score=rg.Location(torch.ones(7, 9))),
        ShapeError,
        "shape (7, 9), but the query's head_dim is 8",
    ),
    (
        "location-positions",
        given(score=rg.Location(torch.ones(6, 8))),
        ShapeError,
        "weight has 6 positions, but the keys are at 0 to 6; give a weight with at least 7 positions",
    ),
    (
        "location-start",
        given(score=rg.Location(torch.ones(7, 8)), key_start=1),
        ShapeError,
        "the keys are at 1 to 7",
    ),
    (
        "scale-heads",
        given(score=rg.Dot(scale=torch.ones(3))),
        ShapeError,
        "Dot.scale has shape (3,), which does not broa",
    ),
    (
        "alpha-matrix",
        given(normalizer=rg.Entmax(torch.full((2, 4), 1.5))),
        ShapeError,
        "no more dimensions than (heads)",
    ),
    (
        "sink-integers",
        given(normalizer=rg.Softmax(sink=torch.zeros(4).long())),
        ShapeError,
        "Softmax.sink is torch.int64",
    ),
    (
        "bias-broadcast",
        given(bias=torch.zeros(6, 7)),
        ShapeError,
        "shape (6, 7), which does not broadcast to this call's 5 queries: expected size 5 or 1 in dimension -2",
    ),
    (
        "bias-key-heads",
        given(bias=torch.zeros(2, 5, 7)),
        ShapeError,
        "this call's 4 heads: expected size 4 or 1 in dimension -3",
    ),
    (
        "bias-dtype",
        given(bias=torch.zeros(5, 7).double()),
        ShapeError,
        "is torch.float64, but the inputs are torch.float32",
    ),
    (
        "bias-half",
        given(bias=torch.zeros(5, 7).half()),
        ShapeError,
        "TensorBias.tensor is torch.float16, but the inputs a",
    ),
    (
        "bias-device",
        given(bias=torch.zeros(5, 7, device="meta")),
        ShapeError,
        "is on meta, but the inputs are on cpu; move",
    ),
    (
        "mask-shape",
        given(pattern=rg.Mask(booleans(5, 6))),
        ShapeError,
        "Mask.tensor has shape (5, 6), which does not broa",
    ),
    (
        "mask-device",
        given(pattern=rg.Mask(booleans(5, 7, device="meta"))),
        ShapeError,
        "Mask.tensor is on meta, but the",
    ),
    (
        "lengths-batch",
        given(pattern=rg.KeyLengths(torch.tensor([1, 2, 3]))),
        ShapeError,
        "this call's 2 sequences: expected size 2 or 1 in dimension -1",
    ),
    (
        "documents-keys",
        given(pattern=rg.Causal() & rg.Documents(torch.ones(2, 5, dtype=torch.int64))),
        ShapeError,
        "Documents.key_ids has shape (2, 5), which does not broadcast to this call's 7 keys",
    ),
    (
        "layout-queries",
        given(pattern=rg.BlockSparse(booleans(2, 4), 3)),
        ShapeError,
        "covers positions 0 to 5 of the query axis, but the call has 2 to 6; enlarge the layout, or change query_start",
    ),
    (
        "layout-keys",
        given(pattern=~rg.BlockSparse(booleans(4, 2), 3)),
        ShapeError,
        "covers positions 0 to 5 of the key axis, but the call has 0 to 6; enlarge the layout, or change key_start",
    ),
    ("dropout-one", given(dropout=1.0), ConfigError, "dropout=1.0 must be a probability, 0 <= dropout < 1"),
    ("dropout-text", given(dropout="0.1"), ConfigError, "dropout='0.1' must be a probability"),
    (
        "dropout-tensor",
        given(dropout=torch.tensor(0.1)),
        ConfigError,
        "dropout=Tensor(torch.float32, ()) must be a proba",
    ),
]

ARGUMENTS: list[Case] = [
    ("seed-float", given(dropout=0.1, seed=1.5), ConfigError, "seed=1.5 must be a 64-bit int"),
    ("seed-large", given(dropout=0.1, seed=2**63), ConfigError, "seed=9223372036854775808 must be a 64-bit int"),
    (
        "seed-int32",
        given(dropout=0.1, seed=torch.tensor(1, dtype=torch.int32)),
        ShapeError,
        "seed is torch.int32 of shap",
    ),
    (
        "seed-two",
        given(dropout=0.1, seed=torch.tensor([1, 2])),
        ShapeError,
        "seed is torch.int64 of shape (2,); expected",
    ),
    (
        "query-start-float",
        given(query_start=1.5),
        ConfigError,
        "query_start=1.5 must be an int, or an integer tensor (2,)",
    ),
    (
        "query-start-list",
        given(query_start=[0, 1]),
        ConfigError,
        "query_start=[0, 1] must be an int, or an integer tensor",
    ),
    ("query-start-floats", given(query_start=torch.ones(2)), ShapeError, "query_start is torch.float32 of shape (2,)"),
    (
        "query-start-batch",
        given(query_start=torch.tensor([1, 2, 3])),
        ShapeError,
        "shape (3,); expected an int, or integ",
    ),
    (
        "key-start-tensor",
        given(key_start=torch.tensor(1)),
        ConfigError,
        "key_start=Tensor(torch.int64, ()) must be an int",
    ),
    (
        "key-start-none",
        given(key_start=None),
        ConfigError,
        "key_start=None must be an int: the position of the first key",
    ),
    ("summary-kind", given(summary="entropy"), ConfigError, "summary='entropy' is not a Summary; expected one such as"),
    (
        "summary-bins",
        given(summary=rg.Summary(grid=(6, 2))),
        ShapeError,
        "grid=(6, 2) has more bins than the score matrix of 5 que",
    ),
    (
        "entropy-sigmoid",
        given(summary=rg.Summary(entropy=True), normalizer=rg.Sigmoid()),
        UnsupportedError,
        "Summary(entropy=True) is undefined for Sigmoid(): Sigmoid is elementwise",
    ),
    (
        "entropy-prior",
        given(summary=rg.Summary(entropy=True), normalizer=rg.Softmax(prior=rg.Gaussian(torch.ones(5), 1.0))),
        UnsupportedError,
        "weights multiplied by a prior do not sum to 1",
    ),
    (
        "log-sum-exp-entmax",
        given(summary=rg.Summary(log_sum_exp=True), normalizer=rg.Entmax(1.5)),
        UnsupportedError,
        "Summary(log_sum_exp=True) is undefined for Entmax(alpha=1.5): Entmax does not exponentiate its scores",
    ),
    (
        "log-sum-exp-sigmoid",
        given(summary=rg.Summary(log_sum_exp=True), normalizer=rg.Sigmoid()),
        UnsupportedError,
        "Sigmoid does not exponentiate its scores",
    ),
    (
        "log-sum-exp-normalized-sigmoid",
        given(summary=rg.Summary(log_sum_exp=True), normalizer=rg.NormalizedSigmoid()),
        UnsupportedError,
        "NormalizedSigmoid does not exponentiate its scores",
    ),
    ("backend-list", given(backend=[]), ConfigError, "unknown backend []; known: auto, "),
    ("dropout-none", given(dropout=None), ConfigError, "dropout=None must be a probability"),
    ("query-list", inputs(query=[1.0]), ShapeError, "inputs must be dense tensors; got"),
    (
        "backend-typo",
        given(backend="refrence"),
        ConfigError,
        "unknown backend 'refrence'; did you mean 'reference'? Known: auto, ",
    ),
    (
        "backend-typo-plan",
        lambda: rg.plan(QUERY, KEY, VALUE, backend="chunkd"),
        ConfigError,
        "unknown backend 'chunkd'; did you mean 'chunked'?",
    ),
    ("backend-none", given(backend=None), ConfigError, "unknown backend None; known: auto, "),
    (
        "backend-refuses",
        given(score=rg.Cosine(1.0), normalizer=rg.Sigmoid(), backend="sdpa"),
        UnsupportedError,
        "backend 'sdpa' cannot compute this call: score: computes Dot only, not Cosine(scale=1.0); normalizer:",
    ),
    (
        "backend-refuses-location-aware",
        given(score=rg.LocationAware(torch.ones(8), torch.ones(5, 7, 2), torch.ones(2, 8)), backend="native"),
        UnsupportedError,
        "score: computes location features that all queries share only, not LocationAware(vector=Tensor(8), features=",
    ),
    (
        "traced",
        lambda: torch.jit.trace(lambda x: rg.attend(x, x, x), QUERY),
        UnsupportedError,
        "torch.jit.trace would record values that a pattern depends on as constants; use torch.export",
    ),
]

CASES = INPUTS + VALUES + ARGUMENTS
