"""Misuses of the layers and of the cache: see `cases.py`."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

import regard as rg
from regard.errors import ConfigError, ShapeError, UnsupportedError


def zeros(*shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.zeros(*shape, dtype=dtype)


def filled(lookback: int | None = None) -> rg.KeyValueCache:
    """Two sequences, three key heads, five positions, keys of 4 and values of 6."""
    cache = rg.KeyValueCache(lookback)
    cache.append(zeros(2, 3, 5, 4), zeros(2, 3, 5, 6))
    return cache


def layer(**options: object) -> rg.MultiHeadAttention:
    return rg.MultiHeadAttention(8, 2, **options)


X = zeros(2, 5, 8)

CASES: list[tuple[str, Callable[[], object], type[Exception], str]] = [
    # the cache
    ("cache-lookback", lambda: rg.KeyValueCache(-1), ConfigError, "lookback=-1 must be an integer >= 0 keys"),
    ("cache-capacity", lambda: rg.KeyValueCache(capacity=0), ConfigError, "capacity=0 must be an integer >= 1"),
    ("cache-lists", lambda: rg.KeyValueCache().append([1], [2]), ShapeError, "key=[1], value=[2]; expected dense"),
    ("cache-rows-list", lambda: filled().select([0, 1]), ShapeError, "rows=[0, 1] is not a tensor; wrap it in torch"),
    ("cache-nothing-kept", lambda: rg.KeyValueCache().contents, ShapeError, "contents: the cache is empty"),
    ("layer-cache-text", lambda: layer()(X, cache="c"), ConfigError, "cache='c' is not a KeyValueCache"),
    ("layer-query-start", lambda: layer()(X, query_start="a"), ConfigError, "query_start='a' and key_start=0 must be"),
    ("layer-key-start", lambda: layer()(X, key_start="a"), ConfigError, "key_start='a' must be integers"),
    (
        "cache-both",
        lambda: rg.KeyValueCache(7, capacity=9),
        ConfigError,
        "capacity=9 cannot be combined with lookback=7",
    ),
    (
        "cache-dims",
        lambda: rg.KeyValueCache().append(zeros(2, 5, 4), zeros(2, 5, 4)),
        ShapeError,
        "key (2, 5, 4), value (2, 5, 4); expected (batch, kv heads, new positions, head_dim)",
    ),
    (
        "cache-lengths",
        lambda: rg.KeyValueCache().append(zeros(2, 3, 5, 4), zeros(2, 3, 6, 4)),
        ShapeError,
        "key (2, 3, 5, 4), value (2, 3, 6, 4)",
    ),
    (
        "cache-dtypes",
        lambda: rg.KeyValueCache().append(zeros(2, 3, 5, 4), zeros(2, 3, 5, 4, dtype=torch.float64)),
        ShapeError,
        "key is torch.float32 on cpu, value torch.float64 on cpu; expected one dtype and device",
    ),
    (
        "cache-empty",
        lambda: rg.KeyValueCache().append(zeros(2, 3, 0, 4), zeros(2, 3, 0, 4)),
        ShapeError,
        "key (2, 3, 0, 4), value (2, 3, 0, 4) for an empty cache",
    ),
    (
        "cache-batch",
        lambda: filled().append(zeros(1, 3, 1, 4), zeros(1, 3, 1, 6)),
        ShapeError,
        "key (1, 3, 1, 4) does not match the cache, (batch, kv heads, positions, head_dim) = (2, 3, 5, 4)",
    ),
    (
        "cache-value-dim",
        lambda: filled().append(zeros(2, 3, 1, 4), zeros(2, 3, 1, 4)),
        ShapeError,
        "value (2, 3, 1, 4) does not match the cache",
    ),
    (
        "cache-dtype-later",
        lambda: filled().append(zeros(2, 3, 1, 4, dtype=torch.float16), zeros(2, 3, 1, 6, dtype=torch.float16)),
        ShapeError,
        "key is torch.float16 on cpu, but the cache is torch.float32 on cpu",
    ),
    (
        "cache-device-later",
        lambda: filled().append(zeros(2, 3, 1, 4).to("meta"), zeros(2, 3, 1, 6).to("meta")),
        ShapeError,
        "key is torch.float32 on meta, but the cache is torch.float32 on cpu",
    ),
    (
        "cache-select-kind",
        lambda: filled().select(torch.tensor([0.0])),
        ShapeError,
        "rows is torch.float32 of shape (1,); expected at least one index",
    ),
    (
        "cache-select-none",
        lambda: filled().select(torch.tensor([False, False])),
        ShapeError,
        "rows is torch.int64 of shape (0,); expected at least one index",
    ),
    (
        "cache-select-range",
        lambda: filled().select(torch.tensor([1, 2])),
        ShapeError,
        "rows has indices from 1 to 2, but the cache holds 2 sequences, 0 to 1",
    ),
    (
        "cache-select-negative",
        lambda: filled().select(torch.tensor([-1])),
        ShapeError,
        "rows has indices from -1 to -1",
    ),
    # positions
    ("rotary-odd", lambda: rg.Rotary(7), ConfigError, "head_dim=7 with fraction=1.0 rotates 7 features"),
    ("rotary-fraction", lambda: rg.Rotary(8, fraction=1.5), ConfigError, "fraction=1.5 rotates 12 features"),
    ("rotary-fraction-part", lambda: rg.Rotary(8, fraction=0.3), ConfigError, "rotates 2.4 features; expected an even"),
    ("rotary-base", lambda: rg.Rotary(8, base=0), ConfigError, "Rotary: base=0 must be a positive number"),
    (
        "rotary-x",
        lambda: rg.Rotary(8)(zeros(1, 2, 3, 6), torch.arange(3)[None]),
        ShapeError,
        "x has shape (1, 2, 3, 6); expected (batch, heads, length, head_dim=8)",
    ),
    (
        "rotary-positions",
        lambda: rg.Rotary(8)(zeros(2, 2, 3, 8), torch.arange(3)),
        ShapeError,
        "positions has shape (3,), but x (2, 2, 3, 8); expected positions (2 or 1, 3)",
    ),
    ("sines-odd", lambda: rg.SinusoidalPositions(9), ConfigError, "embed_dim=9 must be even"),
    ("sines-base", lambda: rg.SinusoidalPositions(8, base=-1), ConfigError, "base=-1 must be a positive number"),
    (
        "sines-x",
        lambda: rg.SinusoidalPositions(8)(zeros(2, 5, 6)),
        ShapeError,
        "SinusoidalPositions: x has shape (2, 5, 6); expected (batch, length, embed_dim=8)",
    ),
    (
        "sines-start",
        lambda: rg.SinusoidalPositions(8)(X, start=torch.tensor([1, 2, 3])),
        ShapeError,
        "start is torch.int64 of shape (3,); expected an int, or integers of shape (2,)",
    ),
    (
        "learned-positions-size",
        lambda: rg.LearnedPositions(0, 8),
        ConfigError,
        "num_positions=0 must be an integer >= 1",
    ),
    (
        "learned-positions-long",
        lambda: rg.LearnedPositions(4, 8)(X),
        ShapeError,
        "the tokens have positions 0 to 4, but the layer has vectors for 0 to 3",
    ),
    (
        "learned-positions-start",
        lambda: rg.LearnedPositions(9, 8)(X, start=torch.tensor([5, 0])),
        ShapeError,
        "the tokens have positions 0 to 9, but the layer has vectors for 0 to 8",
    ),
    (
        "learned-positions-negative",
        lambda: rg.LearnedPositions(9, 8)(X, start=-1),
        ShapeError,
        "the tokens have positions -1 to 3",
    ),
    # settings
    ("learned-location", lambda: rg.LearnedLocation(0), ConfigError, "LearnedLocation: positions=0 must be"),
    ("learned-entmax", lambda: rg.LearnedEntmax(1.0), ConfigError, "LearnedEntmax: alpha=1.0 must be above 1.01"),
    (
        "learned-additive",
        lambda: layer(score=rg.LearnedAdditive("tan")),
        ConfigError,
        "unknown activation 'tan'; did you mean 'tanh'?",
    ),
    (
        "learned-relative",
        lambda: layer(position_bias=rg.LearnedRelativeBias(3)),
        ConfigError,
        "RelativeBias: 3 buckets and max_distance=128",
    ),
    (
        "layer-kind",
        lambda: layer(score=rg.LearnedEntmax()),
        ConfigError,
        "score=LearnedEntmax(alpha=1.5) is not a Score; known: Dot, Cosine",
    ),
    (
        "layer-tensor-score",
        lambda: layer(score=rg.Additive(zeros(4))),
        ConfigError,
        "score=Additive(vector=Tensor(4)) holds a tensor, which would not be in the layer's state_dict",
    ),
    (
        "layer-tensor-normalizer",
        lambda: layer(normalizer=rg.Entmax(torch.tensor([1.5, 1.5]))),
        ConfigError,
        "give LearnedEntmax(...)",
    ),
    (
        "layer-tensor-pattern",
        lambda: layer(pattern=rg.Causal() & rg.KeyLengths(torch.tensor([3, 4]))),
        ConfigError,
        "nor move or train with the layer; pass it to each call, as layer(x, pattern=...)",
    ),
    (
        "layer-tensor-bias",
        lambda: layer(position_bias=rg.TensorBias(zeros(5, 5))),
        ConfigError,
        "pass it to each call, as layer(x, bias=...)",
    ),
    (
        "layer-tensor-scale",
        lambda: layer(score=rg.Dot(scale=torch.tensor(2.0))),
        ConfigError,
        "score=Dot(scale=tensor(2)) holds a tensor",
    ),
    # the layer
    ("layer-size", lambda: rg.MultiHeadAttention(8, 0), ConfigError, "num_heads=0 must be an integer >= 1"),
    ("layer-heads", lambda: rg.MultiHeadAttention(8, 3), ConfigError, "embed_dim=8 is not a multiple of num_heads=3"),
    (
        "layer-groups",
        lambda: rg.MultiHeadAttention(8, 4, num_kv_heads=3),
        ConfigError,
        "num_kv_heads=3 must divide num_heads=4",
    ),
    ("layer-dropout", lambda: layer(dropout=1.0), ConfigError, "dropout=1.0 must be a probability"),
    (
        "layer-rotary",
        lambda: layer(positions=rg.Rotary(8)),
        ConfigError,
        "does not match head_dim=4; expected Rotary(4), or None",
    ),
    (
        "layer-backend",
        lambda: layer(backend="chunk")(X),
        ConfigError,
        "unknown backend 'chunk'; did you mean 'chunked'?",
    ),
    (
        "layer-query",
        lambda: layer()(zeros(5, 8)),
        ShapeError,
        "query is Tensor(torch.float32, (5, 8)); expected a tensor (batch, length, 8)",
    ),
    (
        "layer-key",
        lambda: layer(key_dim=6)(X),
        ShapeError,
        "key is Tensor(torch.float32, (2, 5, 8)); expected a tensor (batch, length, 6); without `key` the layer",
    ),
    (
        "layer-value",
        lambda: layer()(X, X, zeros(2, 4, 8)),
        ShapeError,
        "query (2, 5, 8), key (2, 5, 8), value (2, 4, 8); expected equal batch sizes, and key and value of",
    ),
    (
        "layer-two-biases",
        lambda: layer(position_bias=rg.ALiBiSlopes())(X, bias=zeros(5, 5)),
        ConfigError,
        "a call with bias to a layer with position_bias=",
    ),
    (
        "layer-cache-start",
        lambda: layer(pattern=rg.Causal())(X, cache=rg.KeyValueCache(), key_start=3),
        ConfigError,
        "key_start=3 together with a cache, whose next position is 0",
    ),
    (
        "layer-cache-short",
        lambda: layer(pattern=rg.Causal() & rg.SlidingWindow(left=9))(X, cache=rg.KeyValueCache(7)),
        ConfigError,
        "the cache stores lookback=7 keys, but Causal() & SlidingWindow(left=9) lets a query see 9 keys",
    ),
    (
        "layer-cache-unbounded",
        lambda: layer(pattern=rg.Causal())(X, cache=rg.KeyValueCache(7)),
        ConfigError,
        "lets a query see any number of keys before its own position; make the cache with KeyValueCache.for_pattern",
    ),
    (
        "from-torch-kind",
        lambda: rg.MultiHeadAttention.from_torch(nn.Linear(2, 2)),
        ConfigError,
        "got a Linear; expected a torch.nn.MultiheadAttention",
    ),
    (
        "from-torch-bias-kv",
        lambda: rg.MultiHeadAttention.from_torch(nn.MultiheadAttention(8, 2, add_bias_kv=True)),
        UnsupportedError,
        "the module has bias_k and bias_v",
    ),
    (
        "from-torch-zero",
        lambda: rg.MultiHeadAttention.from_torch(nn.MultiheadAttention(8, 2, add_zero_attn=True)),
        UnsupportedError,
        "the module has add_zero_attn",
    ),
    # fast linear maps
    ("accelerate-number", lambda: rg.accelerate(3), ConfigError, "accelerate: got 3; expected a torch.nn.Module"),
    ("restore-class", lambda: rg.restore(nn.Linear), ConfigError, "restore: got <class 'torch.nn.modules.linear"),
    (
        "accelerate-dtype",
        lambda: rg.accelerate(nn.Linear(2, 2), dtype=torch.float16),
        ConfigError,
        "accelerate: dtype=torch.float16; expected torch.bfloat16, torch.float32, 'int8' or None",
    ),
    ("accelerate-list", lambda: rg.accelerate(nn.Linear(2, 2), dtype=["a"]), ConfigError, "dtype=['a']; expected"),
]
