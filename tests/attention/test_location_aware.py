"""The location-aware score: by hand, by its formula one pair at a time, and as an additive score."""

import math

import pytest
import torch
from torch import Tensor

import regard as rg

B, H, G, L, S, E, F = 2, 4, 2, 3, 7, 5, 2


def numbers(seed: int, *shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


QUERY, KEY, VECTOR, PROJECTION = numbers(1, B, H, L, E), numbers(2, B, G, S, E), numbers(3, E), numbers(4, F, E)


def test_by_hand() -> None:
    """Weights of 1/2 on the first two of three keys, a filter of twice the key before and once the key after."""
    score = rg.LocationAware.from_previous(
        torch.tensor([0.5, 0.5, 0.0], dtype=torch.float64),
        filters=torch.tensor([[2.0, 0.0, 1.0]], dtype=torch.float64),
        projection=torch.tensor([[1.0, -1.0]], dtype=torch.float64),
        vector=torch.tensor([3.0, 1.0], dtype=torch.float64),
    )
    # features: 2 * nothing + 1/2; 2 * 1/2 + 0; 2 * 1/2 + nothing
    assert score.features[:, 0].tolist() == [0.5, 1.0, 1.0]
    query = torch.tensor([[[[0.25, 0.0]]]], dtype=torch.float64)
    key = torch.tensor([[[[0.0, 0.0], [1.0, 0.0], [-1.25, 1.0]]]], dtype=torch.float64)
    expected = [
        3 * math.tanh(0.75) + math.tanh(-0.5),
        3 * math.tanh(2.25) + math.tanh(-1.0),
        3 * math.tanh(0.0) + math.tanh(0.0),
    ]
    assert score.scores(query, key).flatten().tolist() == pytest.approx(expected, abs=1e-14)


SHAPES = {
    "a row for each query": ((B, H, L, S), (F, 3)),
    "a row for each head": ((B, H, 1, S), (F, 5)),
    "one row": ((S,), (F, 3)),
    "filters for each head": ((B, 1, L, S), (H, F, 3)),
    "filters and rows for each head": ((H, 1, S), (H, F, 1)),
    "more taps than keys": ((B, H, 1, S), (H, F, 17)),
}


@pytest.mark.parametrize("name", SHAPES)
def test_formula(name: str) -> None:
    rows, taps = (numbers(5, *SHAPES[name][0]), numbers(6, *SHAPES[name][1]))
    score = rg.LocationAware.from_previous(rows, filters=taps, projection=PROJECTION, vector=VECTOR)
    found = score.scores(QUERY, KEY)
    assert found.shape == (B, H, L, S)
    previous, filters = rows.expand(B, H, L, S), taps.expand(H, F, -1)
    middle = filters.shape[-1] // 2
    for b in range(B):
        for h in range(H):
            for i in range(L):
                for j in range(S):
                    inside = [d for d in range(filters.shape[-1]) if 0 <= j + d - middle < S]
                    features = [
                        sum(filters[h, f, d] * previous[b, h, i, j + d - middle] for d in inside) for f in (0, 1)
                    ]
                    location = features[0] * PROJECTION[0] + features[1] * PROJECTION[1]
                    expected = VECTOR @ torch.tanh(QUERY[b, h, i] + KEY[b, h * G // H, j] + location)
                    torch.testing.assert_close(found[b, h, i, j], expected, rtol=1e-12, atol=1e-12)


def test_without_previous_weights_it_is_additive() -> None:
    score = rg.LocationAware.from_previous(
        torch.zeros(S, dtype=torch.float64), filters=numbers(6, F, 3), projection=PROJECTION, vector=VECTOR
    )
    torch.testing.assert_close(score.scores(QUERY, KEY), rg.Additive(VECTOR).scores(QUERY, KEY))


@pytest.mark.parametrize("backend", ["reference", "chunked", "native"])
def test_keys_of_weight_zero_may_follow(backend: str) -> None:
    """Padding: as if the keys ended before."""
    previous, filters = numbers(5, B, H, 1, S).abs(), numbers(6, F, 5)
    longer = torch.cat([previous, torch.zeros(B, H, 1, 4, dtype=torch.float64)], -1)
    key = torch.cat([KEY, torch.full((B, G, 4, E), torch.nan, dtype=torch.float64)], 2)
    outputs = []
    for weights, keys in ((previous, KEY), (longer, key)):
        score = rg.LocationAware.from_previous(weights, filters=filters, projection=PROJECTION, vector=VECTOR)
        pattern = rg.KeyLengths(torch.full((B,), S))
        outputs.append(rg.attend(QUERY, keys, keys, score=score, pattern=pattern, backend=backend))
    torch.testing.assert_close(outputs[1], outputs[0], rtol=1e-12, atol=1e-12)


def test_half_inputs_beside_float32_parameters() -> None:
    score = rg.LocationAware.from_previous(
        numbers(5, S).float(), filters=numbers(6, F, 3).float(), projection=PROJECTION.float(), vector=VECTOR.float()
    )
    half = [x.bfloat16() for x in (QUERY, KEY, KEY)]
    expected = rg.attend(*(x.float() for x in half), score=score, backend="reference")
    for backend in ("reference", "chunked", "native"):
        output = rg.attend(*half, score=score, backend=backend)
        assert output.dtype == torch.bfloat16
        torch.testing.assert_close(output.float(), expected, rtol=2**-8, atol=2**-8)


def test_float32_weights_beside_half_filters() -> None:
    """Summaries give float32 weights for half inputs."""
    score = rg.LocationAware.from_previous(
        numbers(5, S).float(),
        filters=numbers(6, F, 3).bfloat16(),
        projection=PROJECTION.bfloat16(),
        vector=VECTOR.bfloat16(),
    )
    assert score.features.dtype == torch.float32
    half = [x.bfloat16() for x in (QUERY, KEY, KEY)]
    assert rg.attend(*half, score=score).dtype == torch.bfloat16
