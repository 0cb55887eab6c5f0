"""No sequences, heads, queries or keys, or vectors of no numbers: as PyTorch has it, on every backend."""

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

import regard as rg
from regard import kernels
from regard.errors import UnsupportedError

BACKENDS = ["auto", "reference", "chunked", "sdpa", *([] if kernels.missing() else ["native"])]
# B, H, G, L, S, E, V
SIZES = {
    "no sequences": (0, 4, 2, 3, 5, 7, 6),
    "no heads": (2, 0, 0, 3, 5, 7, 6),
    "no query heads": (2, 0, 2, 3, 5, 7, 6),
    "no queries": (2, 4, 2, 0, 5, 7, 6),
    "no keys": (2, 4, 2, 3, 0, 7, 6),
    "no queries or keys": (2, 4, 4, 0, 0, 7, 6),
    "no numbers in keys": (2, 4, 2, 3, 5, 0, 6),
    "no numbers in values": (2, 4, 2, 3, 5, 7, 0),
}


def inputs(name: str) -> tuple[Tensor, Tensor, Tensor]:
    batch, heads, groups, rows, columns, dim, value_dim = SIZES[name]
    generator = torch.Generator().manual_seed(0)
    shapes = (batch, heads, rows, dim), (batch, groups, columns, dim), (batch, groups, columns, value_dim)
    query, key, value = (torch.randn(shape, generator=generator).requires_grad_() for shape in shapes)
    return query, key, value


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("name", SIZES)
def test_output_and_gradients_are_those_of_pytorch(name: str, backend: str) -> None:
    tensors = inputs(name)
    output = rg.attend(*tensors, backend=backend)
    expected = scaled_dot_product_attention(*tensors, enable_gqa=tensors[0].shape[1] != tensors[1].shape[1])
    torch.testing.assert_close(output, expected)
    found = torch.autograd.grad(output.sum(), tensors)
    for x, gradient, theirs in zip(
        tensors, found, torch.autograd.grad(expected.sum(), tensors, allow_unused=True), strict=True
    ):
        torch.testing.assert_close(gradient, torch.zeros_like(x) if theirs is None else theirs)


def values(name: str) -> dict[str, dict[str, Any]]:
    """Every kind of value, of the sizes of a call."""
    batch, heads, _, rows, columns, dim, _ = SIZES[name]
    ones = torch.ones(batch, dtype=torch.int64)
    return {
        "causal": {"pattern": rg.Causal() & rg.SlidingWindow(left=2)},
        "blocks": {"pattern": rg.BlockSparse(torch.ones(4, 4, dtype=torch.bool), block_size=2)},
        "lengths": {"pattern": rg.KeyLengths(ones) | rg.PrefixLM(ones)},
        "documents": {"pattern": rg.Documents(ones[:, None].expand(batch, rows), ones[:, None].expand(batch, columns))},
        "mask": {"pattern": ~rg.Mask(torch.ones(batch, heads, rows, columns, dtype=torch.bool))},
        "around": {"pattern": rg.Around(torch.zeros(batch, heads, rows), left=1, right=1)},
        "starts": {"pattern": rg.Causal(), "query_start": ones},
        "bias": {"bias": torch.zeros(batch, heads, rows, columns)},
        "alibi": {"bias": rg.ALiBi(torch.zeros(heads)), "score": rg.Dot(softcap=3.0)},
        "relative": {"bias": rg.RelativeBias(torch.zeros(8, heads)), "score": rg.Cosine(2.0)},
        "additive": {"score": rg.Additive(torch.zeros(dim)), "normalizer": rg.Sparsemax()},
        "location aware": {
            "score": rg.LocationAware.from_previous(
                torch.zeros(batch, heads, 1, columns),
                filters=torch.zeros(2, 3),
                projection=torch.zeros(2, dim),
                vector=torch.zeros(dim),
            ),
            "normalizer": rg.NormalizedSigmoid(),
        },
        "location aware by head": {
            "score": rg.LocationAware.from_previous(
                torch.zeros(columns),
                filters=torch.zeros(heads, 2, 3),
                projection=torch.zeros(heads, 2, dim),
                vector=torch.zeros(dim),
            )
        },
        "bilinear": {"score": rg.Bilinear(torch.zeros(dim, dim)), "normalizer": rg.Entmax(1.5)},
        "location": {"score": rg.Location(torch.zeros(5, dim)), "normalizer": rg.Sigmoid()},
        "sink": {"normalizer": rg.Softmax(sink=torch.zeros(heads))},
        "prior": {"normalizer": rg.Softmax(prior=rg.Gaussian(torch.zeros(batch, heads, rows), 1.0))},
        "dropout": {"dropout": 0.5},
    }


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("name", SIZES)
def test_every_value_goes_with_it(name: str, backend: str) -> None:
    tensors = inputs(name)
    for arguments in values(name).values():
        try:
            output = rg.attend(*tensors, backend=backend, **arguments)
        except UnsupportedError:  # which an empty input does not change
            assert backend == "sdpa" or isinstance(arguments.get("normalizer"), rg.NormalizedSigmoid)
            continue
        assert output.shape == (*tensors[0].shape[:3], tensors[2].shape[3])
        assert output.isfinite().all()
        assert rg.plan(*tensors, backend=backend, **arguments).explain()


@pytest.mark.parametrize("name", ["no sequences", "no heads", "no queries", "no keys", "no numbers in values"])
def test_summaries(name: str) -> None:
    batch, heads, _, rows, columns, *_ = SIZES[name]
    sizes = {"top_k": 2, "log_sum_exp": True, "entropy": True, "expected_key": True, "key_mass": True, "weights": True}
    _, result = rg.attend(*inputs(name), summary=rg.Summary(**sizes))
    assert result.weights.shape == (batch, heads, rows, columns)
    assert result.key_mass.shape == (batch, heads, columns)
    assert result.top_keys.shape == result.top_weights.shape == (batch, heads, rows, 2)
    for x in (result.log_sum_exp, result.entropy, result.expected_key, result.key_variance):
        assert x.shape == (batch, heads, rows)
    if name == "no keys":
        assert (result.log_sum_exp == -torch.inf).all()
        assert (result.top_keys == -1).all()
        assert not result.entropy.any()
    if name == "no numbers in values":
        torch.testing.assert_close(result.weights.sum(-1), torch.ones(batch, heads, rows))


def test_a_sink_without_keys() -> None:
    sink = torch.arange(4.0)
    _, result = rg.attend(*inputs("no keys"), normalizer=rg.Softmax(sink=sink), summary=rg.Summary(log_sum_exp=True))
    torch.testing.assert_close(result.log_sum_exp, sink[:, None].expand(2, 4, 3))


def test_nan_reaches_nothing() -> None:
    query, key, value = (x.detach() for x in inputs("no keys"))
    assert not rg.attend(torch.full_like(query, torch.nan), key, value).any()


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.bfloat16])
def test_dtypes(dtype: torch.dtype) -> None:
    assert rg.attend(*(x.to(dtype) for x in inputs("no keys"))).dtype == dtype
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert rg.attend(*inputs("no keys")).dtype == torch.bfloat16


def test_a_cache_of_no_sequences() -> None:
    layer = rg.MultiHeadAttention(8, 2, pattern=rg.Causal())
    cache = rg.KeyValueCache.for_pattern(layer.pattern)
    assert layer(torch.zeros(0, 3, 8), cache=cache).shape == (0, 3, 8)
    assert layer(torch.zeros(0, 1, 8), cache=cache).shape == (0, 1, 8)
    assert cache.length == 4
