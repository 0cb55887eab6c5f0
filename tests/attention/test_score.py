"""Scores by their formulas, one pair at a time, with grouped heads and every kind of parameter."""

import math

import pytest
import torch
from torch import Tensor

import regard as rg
from regard.attention.score import Score

B, H, G, L, S, E = 2, 4, 2, 3, 5, 7


def numbers(seed: int, *shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


QUERY, KEY = numbers(1, B, H, L, E), numbers(2, B, G, S, E)
PER_HEAD = numbers(3, H)
MATRIX, MATRICES = numbers(4, E, E), numbers(4, H, E, E)
VECTOR, VECTORS = numbers(5, E), numbers(5, H, E)
ROWS, HEAD_ROWS = numbers(6, S, E), numbers(6, H, S, E)

CASES = {
    "dot": (rg.Dot(), lambda q, k, h, s: q @ k / math.sqrt(E)),
    "dot, a scale": (rg.Dot(scale=0.3), lambda q, k, h, s: 0.3 * (q @ k)),
    "dot, a scale a head": (rg.Dot(scale=PER_HEAD), lambda q, k, h, s: PER_HEAD[h] * (q @ k)),
    "dot, one scale": (rg.Dot(scale=PER_HEAD[0]), lambda q, k, h, s: PER_HEAD[0] * (q @ k)),
    "dot, capped": (rg.Dot(scale=2.0, softcap=1.5), lambda q, k, h, s: 1.5 * torch.tanh(2 * (q @ k) / 1.5)),
    "cosine": (rg.Cosine(3.0), lambda q, k, h, s: 3 * (q @ k) / (q.norm() * k.norm())),
    "cosine, a scale a head": (rg.Cosine(PER_HEAD), lambda q, k, h, s: PER_HEAD[h] * (q @ k) / (q.norm() * k.norm())),
    "bilinear": (rg.Bilinear(MATRIX), lambda q, k, h, s: q @ MATRIX @ k),
    "bilinear, a head": (rg.Bilinear(MATRICES), lambda q, k, h, s: q @ MATRICES[h] @ k),
    "additive": (rg.Additive(VECTOR), lambda q, k, h, s: VECTOR @ torch.tanh(q + k)),
    "additive, a head": (rg.Additive(VECTORS, "relu"), lambda q, k, h, s: VECTORS[h] @ torch.relu(q + k)),
    "additive, sigmoid": (rg.Additive(VECTOR, "sigmoid"), lambda q, k, h, s: VECTOR @ torch.sigmoid(q + k)),
    "location": (rg.Location(ROWS), lambda q, k, h, s: ROWS[s] @ q),
    "location, a head": (rg.Location(HEAD_ROWS), lambda q, k, h, s: HEAD_ROWS[h, s] @ q),
}


@pytest.mark.parametrize("name", CASES)
def test_formula(name: str) -> None:
    score, formula = CASES[name]
    found = score.scores(QUERY, KEY)
    assert found.shape == (B, H, L, S)
    for b in range(B):
        for h in range(H):
            for i in range(L):
                for j in range(S):
                    expected = formula(QUERY[b, h, i], KEY[b, h * G // H, j], h, j)
                    torch.testing.assert_close(found[b, h, i, j], expected, rtol=1e-12, atol=1e-12)


def test_bilinear_scores_vectors_of_different_sizes() -> None:
    key, weight = numbers(8, B, G, S, 5), numbers(9, E, 5)
    found = rg.Bilinear(weight).scores(QUERY, key)
    torch.testing.assert_close(found[1, 3], QUERY[1, 3] @ weight @ key[1, 1].T, rtol=1e-12, atol=1e-12)
    output = rg.attend(QUERY, key, key, score=rg.Bilinear(weight))
    assert output.shape == (B, H, L, 5)


@pytest.mark.parametrize("name", ["dot", "cosine", "bilinear", "additive", "location"])
def test_half_inputs_beside_float32_parameters(name: str) -> None:
    scores: dict[str, Score] = {
        "dot": rg.Dot(scale=PER_HEAD.float()),
        "cosine": rg.Cosine(PER_HEAD.float()),
        "bilinear": rg.Bilinear(MATRIX.float()),
        "additive": rg.Additive(VECTOR.float()),
        "location": rg.Location(ROWS.float()),
    }
    half = [x.bfloat16() for x in (QUERY, KEY, KEY)]
    output = rg.attend(*half, score=scores[name], backend="reference")
    assert output.dtype == torch.bfloat16
    expected = rg.attend(*(x.float() for x in half), score=scores[name], backend="reference")
    torch.testing.assert_close(output.float(), expected, rtol=2**-8, atol=2**-8)


def test_the_cosine_of_a_zero_vector_is_zero() -> None:
    zero = torch.zeros_like(QUERY).requires_grad_()
    found = rg.Cosine(3.0).scores(zero, KEY)
    assert not bool(found.any())
    (gradient,) = torch.autograd.grad(found.sum(), zero)
    assert bool(gradient.isfinite().all())


def test_location_follows_the_positions_of_the_keys() -> None:
    weight = numbers(6, 9, E)
    found = rg.attend(QUERY, KEY, KEY, score=rg.Location(weight), key_start=3)
    torch.testing.assert_close(found, rg.attend(QUERY, KEY, KEY, score=rg.Location(weight[3:8])))


def test_width() -> None:
    assert rg.Dot().width(64) == 1
    assert rg.Additive(VECTOR).width(64) == 64
