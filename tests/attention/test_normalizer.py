"""Normalizers on rows made to break them: weights are finite, not negative, and sum to 1."""

import math

import pytest
import torch
from torch import Tensor

import regard as rg
from regard.attention.normalizer import Normalizer

ALPHAS = [1.001, 1.01, 1.1, 1.25, 1.5, 1.75, 2.0, 2.5, 3.0, 4.0, 8.0, 16.0]
GENERATOR = torch.Generator().manual_seed(0)
ROWS = {
    "plain": torch.randn(7, 37, generator=GENERATOR),
    "large": 1e4 * torch.randn(7, 37, generator=GENERATOR),
    "small": 1e-6 * torch.randn(7, 37, generator=GENERATOR),
    "far up": 1e4 + torch.randn(7, 37, generator=GENERATOR),
    "far down": -1e4 + torch.randn(7, 37, generator=GENERATOR),
    "equal": torch.full((2, 37), -3.0),
    "one huge": torch.eye(37)[:3] * 1e4,
    "one hidden": torch.randn(3, 37, generator=GENERATOR).masked_fill(torch.eye(37)[:3] > 0, -torch.inf),
    "one visible": torch.where(torch.eye(37)[:3] > 0, 2.5, -torch.inf),
    "one key": torch.tensor([[4.0]]),
    "two ties": torch.tensor([[1.0, 1.0, 0.0, -50.0]]),
    "long": torch.randn(3, 10_000, generator=GENERATOR),
    "long and equal": torch.zeros(2, 10_000),
}


def weights(normalizer: Normalizer, rows: Tensor) -> Tensor:
    return normalizer.weights(rows, normalizer.row_stats(rows))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("alpha", ALPHAS)
@pytest.mark.parametrize("name", ROWS)
def test_entmax_sums_to_one(name: str, alpha: float, dtype: torch.dtype) -> None:
    rows = ROWS[name].to(dtype)
    found = weights(rg.Entmax(alpha), rows[None, None])[0, 0]
    assert bool((found >= 0).all())
    assert float((found.double().sum(-1) - 1).abs().max()) <= 16 * torch.finfo(dtype).eps
    assert not bool(found[rows == -torch.inf].any())
    largest = found.amax(-1, keepdim=True) * (1 - 16 * torch.finfo(dtype).eps)
    assert bool((found.gather(-1, rows.argmax(-1, keepdim=True)) >= largest).all())


@pytest.mark.parametrize("name", ROWS)
def test_entmax_with_a_tensor_is_entmax_with_its_numbers(name: str) -> None:
    rows = ROWS[name].double()[None, None].expand(1, 3, -1, -1)
    found = weights(rg.Entmax(torch.tensor([1.2, 1.5, 3.0], dtype=torch.float64)), rows)
    for head, alpha in enumerate((1.2, 1.5, 3.0)):
        expected = weights(rg.Entmax(alpha), rows[:, :1])[0, 0]
        # A weight may react to its score's rounding as its derivative w^(2 - alpha) says.
        bound = 64 * torch.finfo(torch.float64).eps * expected.where(expected > 0, 1.0).pow(2 - alpha).clamp(min=1)
        assert bool(
            ((found[0, head] - expected).abs() <= bound * (1 + rows.where(rows > -torch.inf, 0.0).abs().amax())).all()
        )


def test_normalized_sigmoid_by_hand() -> None:
    """Sigmoids of 1/2, 3/4 and 1/4; with a bias of log 3, of 3/4, 9/10 and 1/2."""
    scores = torch.tensor([0.0, math.log(3), -math.log(3), -torch.inf], dtype=torch.float64)[None, None, None]
    found = weights(rg.NormalizedSigmoid(), scores)[0, 0, 0].tolist()
    assert found == pytest.approx([1 / 3, 1 / 2, 1 / 6, 0], abs=1e-15)
    found = weights(rg.NormalizedSigmoid(math.log(3)), scores)[0, 0, 0].tolist()
    assert found == pytest.approx([0.75 / 2.15, 0.9 / 2.15, 0.5 / 2.15, 0], abs=1e-15)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("name", ROWS)
def test_normalized_sigmoid_sums_to_one(name: str, dtype: torch.dtype) -> None:
    rows = ROWS[name].to(dtype)[None, None]
    found = weights(rg.NormalizedSigmoid(), rows)
    bound = 8 * torch.finfo(dtype).eps * math.sqrt(rows.shape[-1])
    torch.testing.assert_close(found.sum(-1), torch.ones_like(found[..., 0]), rtol=0, atol=bound)
    assert not bool(found[rows == -torch.inf].any())
    if name == "far down":  # there the sigmoid is the exponential, and its own sum would be 0
        torch.testing.assert_close(found, rows.softmax(-1), rtol=100 * bound, atol=bound)


def test_normalized_sigmoid_of_a_row_that_sees_nothing() -> None:
    rows = torch.full((1, 1, 2, 3), -torch.inf, requires_grad=True)
    found = weights(rg.NormalizedSigmoid(), rows)
    (gradient,) = torch.autograd.grad(found.sum(), rows)
    assert not found.any()
    assert not gradient.any()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("name", ROWS)
def test_softmax_and_sparsemax_sum_to_one(name: str, dtype: torch.dtype) -> None:
    rows = ROWS[name].to(dtype)[None, None]
    bound = 8 * torch.finfo(dtype).eps * math.sqrt(rows.shape[-1])
    soft = weights(rg.Softmax(), rows)
    torch.testing.assert_close(soft, rows.softmax(-1), rtol=100 * bound, atol=bound)
    sparse = weights(rg.Sparsemax(), rows)
    assert float((sparse.sum(-1) - 1).abs().max()) <= 4 * torch.finfo(dtype).eps * rows.shape[-1]
    torch.testing.assert_close(sparse, weights(rg.Entmax(2.0), rows), rtol=0, atol=bound)


def test_entmax_tends_to_softmax_toward_one() -> None:
    rows = ROWS["plain"].double()[None, None]
    for alpha in (1.1, 1.01, 1.001):
        torch.testing.assert_close(weights(rg.Entmax(alpha), rows), rows.softmax(-1), rtol=0, atol=2 * (alpha - 1))


@pytest.mark.parametrize(
    "normalizer",
    [
        rg.Softmax(),
        rg.Softmax(sink=torch.tensor(0.5)),
        rg.Softmax(sink=torch.tensor(-torch.inf)),
        rg.Sparsemax(),
        rg.Entmax(1.5),
        rg.Entmax(torch.tensor([1.3, 2.5])),
        rg.Sigmoid(),
        rg.Sigmoid(torch.tensor([1.0, -1.0])),
    ],
    ids=str,
)
def test_a_row_of_minus_infinity(normalizer: Normalizer) -> None:
    rows = torch.randn(1, 2, 3, 5, generator=torch.Generator().manual_seed(1))
    rows[:, :, 1] = -torch.inf
    rows.requires_grad_()
    found = weights(normalizer, rows)
    assert not bool(found[:, :, 1].any())
    assert bool((found[:, :, [0, 2]].sum(-1) > 0).all())
    (gradient,) = torch.autograd.grad(found.square().sum(), rows)
    assert bool(gradient.isfinite().all())
    assert not bool(gradient[:, :, 1].any())


def test_a_sink_takes_its_share() -> None:
    rows = torch.tensor([[[[1.0, 2.0, -1.0]]]]).double()
    sink = torch.tensor([0.5]).double()
    total = math.exp(1) + math.exp(2) + math.exp(-1) + math.exp(0.5)
    expected = [math.exp(x) / total for x in (1, 2, -1)]
    assert weights(rg.Softmax(sink=sink), rows).flatten().tolist() == pytest.approx(expected, rel=1e-14)
    far = rg.Softmax(sink=torch.tensor([1e4]).double())  # the sink may be above every score, by any amount
    assert not bool(weights(far, rows).any())


def test_sigmoid_weighs_each_key_by_itself() -> None:
    rows = torch.tensor([[[[0.0, 3.0]], [[-1e4, 1e4]]]])
    found = weights(rg.Sigmoid(torch.tensor([0.0, 1.0])), rows)
    assert found.flatten().tolist() == pytest.approx([0.5, 1 / (1 + math.exp(-3)), 0.0, 1.0], abs=1e-7)


def test_what_a_row_has_no_meaning_for() -> None:
    assert rg.Softmax().no_entropy is None
    assert rg.Softmax().no_log_sum_exp is None
    assert rg.Entmax(1.5).no_entropy is None
    assert "Entmax" in (rg.Entmax(1.5).no_log_sum_exp or "")
    assert "Sigmoid" in (rg.Sigmoid().no_entropy or "")
    assert "prior" in (rg.Softmax(prior=rg.Gaussian(torch.ones(3), 1.0)).no_entropy or "")
