"""What went wrong once: each test is the shortest call that showed it."""

import sys

import pytest
import torch

import regard as rg


def inputs(length: int = 300, dim: int = 4) -> tuple[torch.Tensor, ...]:
    torch.manual_seed(0)
    return tuple(torch.randn(2, 2, length, dim, dtype=torch.float64) for _ in range(3))


@pytest.mark.parametrize("left", [3, sys.maxsize])
def test_a_bound_beyond_every_position_is_no_bound(left: int) -> None:
    q, k, v = inputs()
    for pattern in (rg.SlidingWindow(left, sys.maxsize), rg.Dilated(2, left=left, right=sys.maxsize)):
        for p in (pattern, ~pattern):
            found, expected = (rg.attend(q, k, v, pattern=p, backend=b) for b in ("chunked", "reference"))
            torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("normalizer", [rg.Softmax(), rg.Sigmoid()])
def test_backward_drops_what_forward_dropped_though_the_seed_has_changed(normalizer: rg.Softmax) -> None:
    q, k, v = inputs(9)
    gradients = []
    for step in (0, 1):
        seed, x = torch.tensor(1), q.clone().requires_grad_()
        output = rg.attend(x, k, v, normalizer=normalizer, dropout=0.5, seed=seed, backend="chunked")
        seed += step
        output.square().sum().backward()
        gradients.append(x.grad)
    torch.testing.assert_close(gradients[0], gradients[1], rtol=0, atol=0)


def test_cosine_of_any_length() -> None:
    q, k, v = (x.float() for x in inputs(5))
    expected = rg.attend(q, k, v, score=rg.Cosine(3.0))
    for length in (1e-30, 1e20):
        torch.testing.assert_close(rg.attend(length * q, k, v, score=rg.Cosine(3.0)), expected)


def test_cosine_of_a_zero_vector_has_a_finite_gradient() -> None:
    _, k, v = inputs(5)
    zero = torch.zeros_like(k).requires_grad_()
    output = rg.attend(zero, k, v, score=rg.Cosine(3.0))
    torch.testing.assert_close(output, v.mean(2, keepdim=True).expand_as(v))
    output.square().sum().backward()
    assert zero.grad.abs().max() < 100


def test_a_plan_draws_nothing_from_the_generator() -> None:
    before = torch.random.get_rng_state()
    rg.plan(*inputs(5), dropout=0.1)
    assert torch.equal(torch.random.get_rng_state(), before)


def test_a_call_that_fails_leaves_the_cache_as_it_was() -> None:
    layer, cache, x = rg.MultiHeadAttention(16, 2, pattern=rg.Causal()), rg.KeyValueCache(), torch.randn(1, 3, 16)
    layer(x, cache=cache)
    with pytest.raises(rg.errors.ShapeError):
        layer(x, cache=cache, pattern=rg.Mask(torch.ones(3, 3, dtype=torch.bool)))
    assert cache.length == 3
    whole = layer(torch.cat([x, x], 1))
    torch.testing.assert_close(layer(x, cache=cache), whole[:, 3:])


def test_what_is_hidden_may_be_huge() -> None:
    """PyTorch's kernel multiplies hidden keys too: a product that overflows there was NaN here."""
    lengths = rg.KeyLengths(torch.tensor([2]))
    for hidden in (3e38, -3e38):
        query, key, value = (torch.randn(1, 2, 3, 4) for _ in range(3))
        key[:, :, 2] = value[:, :, 2] = hidden
        leaves = [x.requires_grad_() for x in (query, key, value)]
        output = rg.attend(*leaves, pattern=lengths, backend="sdpa")
        assert output.isfinite().all()
        assert all(gradient.isfinite().all() for gradient in torch.autograd.grad(output.sum(), leaves))
