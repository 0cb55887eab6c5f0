"""Biases by their formulas, at any positions; T5's buckets and ALiBi's slopes are in tests/parity."""

import pytest
import torch
from torch import Tensor

import regard as rg

QUERIES, KEYS = torch.tensor([[3, 4, 5], [10, 11, 12]]), torch.arange(2, 9)
TABLE = torch.randn(16, 2, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


def full(bias: rg.ALiBi | rg.RelativeBias) -> Tensor:
    return bias.bias(QUERIES, KEYS, torch.float64).expand(2, 2, 3, 7)


def test_alibi() -> None:
    slopes = torch.tensor([0.5, 2.0]).double()
    found = full(rg.ALiBi(slopes))
    for b in range(2):
        for h in range(2):
            for i in range(3):
                for j in range(7):
                    assert found[b, h, i, j] == -slopes[h] * abs(int(QUERIES[b, i]) - int(KEYS[j]))
    assert torch.equal(full(rg.ALiBi(slopes[1])), found[:, 1:].expand(2, 2, 3, 7))


@pytest.mark.parametrize("bidirectional", [True, False])
def test_relative(bidirectional: bool) -> None:
    bias = rg.RelativeBias(TABLE, bidirectional=bidirectional, max_distance=20)
    found = full(bias)
    for b in range(2):
        for i in range(3):
            for j in range(7):
                bucket = int(bias.bucket(KEYS[j] - QUERIES[b, i]))
                assert torch.equal(found[b, :, i, j], TABLE[bucket])


def test_buckets_are_in_the_table() -> None:
    offsets = torch.arange(-10_000, 10_000)
    for buckets in (4, 5, 7, 32, 33):
        for bidirectional in (True, False):
            found = rg.RelativeBias(torch.zeros(buckets, 1), bidirectional=bidirectional).bucket(offsets)
            assert 0 <= int(found.min()) <= int(found.max()) < buckets
            before = found[:10_001].flip(0)  # distances 0, 1, 2, ...
            assert bool((before.diff() >= 0).all())


@pytest.mark.parametrize("shape", [(7,), (3, 7), (2, 1, 1), (2, 1, 3, 1), (1, 2, 3, 7)])
def test_any_tensor_that_broadcasts(shape: tuple[int, ...]) -> None:
    generator = torch.Generator().manual_seed(2)
    query, key = (torch.randn(2, 2, n, 4, generator=generator, dtype=torch.float64) for n in (3, 7))
    bias = torch.randn(shape, generator=generator, dtype=torch.float64)
    expected = torch.softmax(query @ key.transpose(-1, -2) / 2 + bias, -1) @ key
    for backend in ("reference", "chunked", "sdpa"):
        torch.testing.assert_close(rg.attend(query, key, key, bias=bias, backend=backend), expected)


def test_minus_infinity_hides_a_key() -> None:
    x = torch.randn(1, 1, 5, 4, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    hidden = torch.ones(5, 5).triu(1).bool()
    bias = torch.zeros(5, 5).double().masked_fill(hidden, -torch.inf)
    for backend in ("reference", "chunked", "sdpa"):
        for normalizer in (rg.Softmax(), rg.Sparsemax(), rg.Sigmoid()):
            if backend != "sdpa" or normalizer == rg.Softmax():
                found = rg.attend(x, x, x, bias=bias, normalizer=normalizer, backend=backend)
                torch.testing.assert_close(found, rg.attend(x, x, x, pattern=rg.Causal(), normalizer=normalizer))
