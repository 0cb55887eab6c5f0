"""The Gaussian prior: a factor on the weights, which are not normalized again."""

import math

import pytest
import torch

import regard as rg


def test_factor() -> None:
    center, sigma = torch.tensor([[[0.5, 2.0]], [[1.0, -3.0]]]), torch.tensor([1.0, 2.5])
    found = rg.Gaussian(center, sigma).factor(torch.zeros(1, 2), torch.arange(1, 4), torch.float64)
    assert found.shape == (2, 2, 2, 3)
    for b in range(2):
        for h in range(2):
            for i in range(2):
                for j in range(3):
                    distance = 1 + j - float(center[b, 0, i])
                    expected = math.exp(-(distance**2) / (2 * float(sigma[h]) ** 2))
                    assert float(found[b, h, i, j]) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("backend", ["reference", "chunked"])
def test_weights_are_multiplied_and_left_so(backend: str) -> None:
    query = torch.randn(1, 2, 3, 4, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    prior = rg.Gaussian(torch.tensor([0.0, 1.0, 6.0]).double(), 1.0)
    asked = rg.Summary(weights=True)
    plain = rg.attend(query, query, query, key_start=5, summary=asked, backend=backend)[1].weights
    with_prior = {"normalizer": rg.Softmax(prior=prior), "key_start": 5, "summary": asked, "backend": backend}
    output, result = rg.attend(query, query, query, **with_prior)
    expected = plain * prior.factor(torch.zeros(1, 3), torch.arange(5, 8), torch.float64)
    torch.testing.assert_close(result.weights, expected, rtol=1e-12, atol=1e-15)
    torch.testing.assert_close(output, expected @ query, rtol=1e-12, atol=1e-15)
    assert bool((result.weights.sum(-1) < 1).all())
