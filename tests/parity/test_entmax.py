"""The entmax package (deep-spin/entmax): weights and gradients, alpha's included."""

import entmax
import pytest
import torch
from torch import Tensor

import regard as rg
from regard.attention.normalizer import Normalizer

BACKENDS = ["reference", "chunked"]


def numbers(seed: int, *shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


# As dot products with unit vectors, attention's scores are any matrix at all: (B, H, L, S).
SCORES = (2 * numbers(1, 2, 3, 5, 17)).requires_grad_()
VALUE = numbers(2, 2, 3, 17, 7).requires_grad_()
UNIT = torch.eye(17, dtype=torch.float64).expand(2, 3, 17, 17)
INCOMING = numbers(3, 2, 3, 5, 7)


def ours(normalizer: Normalizer, backend: str) -> Tensor:
    return rg.attend(SCORES, UNIT, VALUE, score=rg.Dot(scale=1.0), normalizer=normalizer, backend=backend)


def same(found: Tensor, weights: Tensor, learned: list[Tensor], bound: float) -> None:
    expected = weights @ VALUE
    torch.testing.assert_close(found, expected, rtol=bound, atol=bound)
    for x, y in zip(
        torch.autograd.grad(found, learned, INCOMING), torch.autograd.grad(expected, learned, INCOMING), strict=True
    ):
        torch.testing.assert_close(x, y, rtol=bound, atol=bound)


@pytest.mark.parametrize("backend", BACKENDS)
def test_sparsemax(backend: str) -> None:
    same(ours(rg.Sparsemax(), backend), entmax.sparsemax(SCORES), [SCORES, VALUE], 1e-12)


@pytest.mark.parametrize("backend", BACKENDS)
def test_entmax15(backend: str) -> None:
    same(ours(rg.Entmax(1.5), backend), entmax.entmax15(SCORES), [SCORES, VALUE], 1e-11)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("alpha", [1.2, 1.5, 1.75, 2.0, 2.5, 3.0])
def test_any_alpha(alpha: float, backend: str) -> None:
    same(ours(rg.Entmax(alpha), backend), entmax.entmax_bisect(SCORES, alpha, n_iter=60), [SCORES, VALUE], 1e-9)


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_learned_alpha_for_each_head(backend: str) -> None:
    alpha = torch.tensor([1.3, 1.6, 2.2], dtype=torch.float64).requires_grad_()
    weights = entmax.entmax_bisect(SCORES, alpha[None, :, None, None].expand(2, 3, 5, 1), n_iter=60)
    same(ours(rg.Entmax(alpha), backend), weights, [SCORES, VALUE, alpha], 1e-8)


def test_weights_themselves() -> None:
    for normalizer, weights in (
        (rg.Sparsemax(), entmax.sparsemax(SCORES)),
        (rg.Entmax(1.5), entmax.entmax15(SCORES)),
    ):
        arguments = {"score": rg.Dot(scale=1.0), "normalizer": normalizer, "summary": rg.Summary(weights=True)}
        result = rg.attend(SCORES, UNIT, VALUE, **arguments)[1]
        torch.testing.assert_close(result.weights, weights, rtol=1e-11, atol=1e-11)
        assert torch.equal(result.weights > 0, weights > 0)
