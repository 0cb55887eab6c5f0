"""T5's buckets and ALiBi's slopes, worked from the papers."""

import math

import pytest
import torch

import regard as rg

# Raffel et al. 2019, section 2.1: 32 buckets, half for keys after the query; of the 16 for one side 8 hold distances
# 0 to 7 and the other 8 grow by logarithm up to 128: bucket 8 + floor(8 log2(distance / 8) / 4), whose edges are
# 8 * 2^(i/2) = 8, 11.31, 16, 22.6, 32, 45.25, 64, 90.5.
BOTH = {
    0: 0, 1: 1, 2: 2, 7: 7, 8: 8, 11: 8, 12: 9, 15: 9, 16: 10, 22: 10, 23: 11, 31: 11, 32: 12, 45: 12, 46: 13, 63: 13,
    64: 14, 90: 14, 91: 15, 127: 15, 128: 15, 1000: 15, 100_000: 15,
}  # fmt: skip
# One direction: 16 exact distances, and 16 up to 128: bucket 16 + floor(16 log2(distance / 16) / 3), whose edges are
# 16 * 2^(3i/16) = 16, 18.22, 20.75, 23.63, 26.91, 30.64, 34.90, 39.74, 45.25, 51.54, 58.69, 66.83, 76.11, 86.67,
# 98.70, 112.4.
ONE = {
    0: 0, 1: 1, 15: 15, 16: 16, 18: 16, 19: 17, 20: 17, 21: 18, 23: 18, 24: 19, 26: 19, 27: 20, 30: 20, 31: 21, 34: 21,
    35: 22, 39: 22, 40: 23, 45: 23, 46: 24, 51: 24, 52: 25, 58: 25, 59: 26, 66: 26, 67: 27, 76: 27, 77: 28, 86: 28,
    87: 29, 98: 29, 99: 30, 112: 30, 113: 31, 128: 31, 5000: 31,
}  # fmt: skip


def test_buckets_of_both_directions() -> None:
    bias = rg.RelativeBias(torch.zeros(32, 1))
    distances = torch.tensor(list(BOTH))
    assert bias.bucket(-distances).tolist() == list(BOTH.values())  # keys before the query
    after = [bucket + 16 if distance else 0 for distance, bucket in BOTH.items()]
    assert bias.bucket(distances).tolist() == after


def test_buckets_of_one_direction() -> None:
    bias = rg.RelativeBias(torch.zeros(32, 1), bidirectional=False)
    distances = torch.tensor(list(ONE))
    assert bias.bucket(-distances).tolist() == list(ONE.values())
    assert set(bias.bucket(distances).tolist()) == {0}


@pytest.mark.parametrize("bidirectional", [True, False])
@pytest.mark.parametrize(("buckets", "farthest"), [(32, 128), (32, 100), (20, 50), (8, 16)])
def test_buckets_of_transformers(bidirectional: bool, buckets: int, farthest: int) -> None:
    t5 = pytest.importorskip("transformers.models.t5.modeling_t5")
    offsets = torch.arange(-700, 700)
    theirs = t5.T5Attention._relative_position_bucket(
        offsets, bidirectional=bidirectional, num_buckets=buckets, max_distance=farthest
    )
    ours = rg.RelativeBias(torch.zeros(buckets, 1), bidirectional=bidirectional, max_distance=farthest).bucket(offsets)
    assert torch.equal(ours, theirs)


@pytest.mark.parametrize("backend", ["reference", "chunked", "sdpa"])
def test_a_bias_is_the_table_at_the_bucket(backend: str) -> None:
    table = torch.randn(32, 2, generator=torch.Generator().manual_seed(1))
    bias = rg.RelativeBias(table)
    weights = torch.zeros(2, 4, 3)
    for head in range(2):
        for query in range(4):
            scores = []
            for key in range(3):
                offset = key - (query - 1)  # 4 queries on 3 keys: the first stands at -1
                bucket = abs(offset) + (16 if offset > 0 else 0)
                scores.append(math.exp(float(table[bucket, head])))
            weights[head, query] = torch.tensor(scores) / sum(scores)
    found = rg.attend(
        torch.zeros(1, 2, 4, 5), torch.zeros(1, 2, 3, 5), torch.eye(3).expand(1, 2, 3, 3), bias=bias, backend=backend
    )
    torch.testing.assert_close(found[0], weights)


def test_alibi_for_a_power_of_two() -> None:
    # Press et al. 2021, section 3: for 8 heads 1/2^1, 1/2^2, ..., 1/2^8; for 16, 1/2^0.5, 1/2^1, ..., 1/2^8
    assert rg.ALiBi.for_heads(8).slopes.tolist() == [1 / 2, 1 / 4, 1 / 8, 1 / 16, 1 / 32, 1 / 64, 1 / 128, 1 / 256]
    expected = [2 ** (-i / 2) for i in range(1, 17)]
    torch.testing.assert_close(rg.ALiBi.for_heads(16).slopes, torch.tensor(expected))
    assert rg.ALiBi.for_heads(1).slopes.tolist() == [1 / 256]


def test_alibi_for_another_number() -> None:
    # The authors' code, for 12 heads: those of 8, then the 1st, 3rd, 5th and 7th of 16.
    expected = [2.0**-i for i in range(1, 9)] + [2**-0.5, 2**-1.5, 2**-2.5, 2**-3.5]
    torch.testing.assert_close(rg.ALiBi.for_heads(12).slopes, torch.tensor(expected))
    assert rg.ALiBi.for_heads(3).slopes.tolist() == [1 / 16, 1 / 256, 1 / 4]


@pytest.mark.parametrize("backend", ["reference", "chunked", "sdpa"])
def test_alibi_in_a_causal_row(backend: str) -> None:
    # Figure 3 of the paper: 0, -1, -2, ... times the slope, growing to the left.
    query, value = torch.zeros(1, 2, 4, 3), torch.eye(4).expand(1, 2, 4, 4)
    bias = rg.ALiBi(torch.tensor([0.5, 0.25]))
    weights = rg.attend(query, query, value, bias=bias, pattern=rg.Causal(), backend=backend)
    for head, slope in enumerate((0.5, 0.25)):
        terms = [math.exp(-slope * distance) for distance in (3, 2, 1, 0)]
        torch.testing.assert_close(weights[0, head, 3], torch.tensor(terms) / sum(terms))
