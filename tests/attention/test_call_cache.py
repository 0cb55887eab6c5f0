"""A remembered call computes the same, and remembers nothing that could change."""

import pytest
import torch

import regard as rg
from regard.attention.engine import call_cache


@pytest.fixture(autouse=True)
def _empty(monkeypatch):
    monkeypatch.setattr(call_cache, "_cache", {})


def inputs(length=5, dtype=torch.float32):
    return tuple(torch.randn(2, 3, length, 4, dtype=dtype) for _ in range(3))


def test_a_repeated_call_is_recalled_and_computes_its_own_inputs():
    pattern = rg.Causal() & rg.SlidingWindow(left=2)
    for _ in range(3):
        query, key, value = inputs()
        output = rg.attend(query, key, value, pattern=pattern, backend="chunked")
        torch.testing.assert_close(output, rg.attend(query, key, value, pattern=pattern, backend="reference"))
    assert len(call_cache._cache) == 2  # one a backend


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"query_start": True}, "query_start=True"),
        ({"key_start": False}, "key_start=False"),
        ({"dropout": False}, "dropout=False"),
        ({"dropout": 1.0}, "dropout=1.0"),
        ({"backend": "chunk"}, "'chunk'"),
    ],
)
def test_a_wrong_argument_equal_to_a_right_one_is_still_refused(wrong, message):
    rg.attend(*inputs(), query_start=1, key_start=0, backend="chunked")
    with pytest.raises(rg.errors.ConfigError, match=message):
        rg.attend(*inputs(), **{"query_start": 1, "key_start": 0, "backend": "chunked"} | wrong)


def test_other_sizes_dtypes_and_layouts_are_checked():
    query, key, value = inputs()
    rg.attend(query, key, value)
    for others in ((query, key[:, :2], value), (query, key.double(), value), (query, key.to_sparse(), value)):
        with pytest.raises(rg.errors.ShapeError):
            rg.attend(*others)


def test_values_with_tensors_are_not_kept():
    lengths = rg.KeyLengths(torch.tensor([5, 2]))
    for _ in range(2):
        rg.attend(*inputs(), pattern=lengths, bias=torch.zeros(5, 5))
    assert not call_cache._cache


def test_what_is_remembered_is_bounded(monkeypatch):
    monkeypatch.setattr(call_cache, "MAX_CALLS", 3)
    for length in range(1, 9):
        rg.attend(*inputs(length))
        assert 1 <= len(call_cache._cache) <= 3


def test_a_recalled_call_keeps_gradients_and_forward_mode():
    query, key, value = inputs(dtype=torch.float64)
    for _ in range(2):
        q = query.clone().requires_grad_()
        (gradient,) = torch.autograd.grad(rg.attend(q, key, value).sum(), q)
    _, tangent = torch.func.jvp(lambda q: rg.attend(q, key, value), (query,), (torch.ones_like(query),))
    torch.testing.assert_close(tangent.sum(), gradient.sum())


@pytest.mark.parametrize(
    "values",
    [
        {},
        {"pattern": rg.Causal(), "query_start": 3},
        {"pattern": rg.Causal() & rg.SlidingWindow(left=2)},
        {"pattern": rg.SlidingWindow(left=1, right=0), "key_start": 7, "query_start": 9},
        {"score": rg.Dot(scale=0.7, softcap=2.0)},
        {"pattern": rg.Dilated(2, left=2), "score": rg.Dot(scale=1.5)},
        {"normalizer": rg.Entmax(1.5)},
    ],
    ids=str,
)
def test_a_repeated_call_gives_the_same_bits(values):
    first = [rg.attend(*inputs(70), **values) for _ in range(2)]
    assert len(call_cache._cache) == 1
    assert not torch.equal(*first)
    query, key, value = (x.transpose(1, 2).contiguous().transpose(1, 2) for x in inputs(70))  # other strides
    repeated = rg.attend(query, key, value, **values)
    call_cache._cache.clear()
    assert torch.equal(repeated, rg.attend(query, key, value, **values))
    torch.testing.assert_close(repeated, rg.attend(query, key, value, **values, backend="reference"))


def test_a_shortcut_is_left_where_more_is_wanted():
    pattern = rg.Causal()
    query, key, value = inputs(20)
    expected = rg.attend(query, key, value, pattern=pattern)
    q = query.clone().requires_grad_()
    output = rg.attend(q, key, value, pattern=pattern)
    assert output.requires_grad
    with torch.no_grad():
        assert not rg.attend(q, key, value, pattern=pattern).requires_grad
    gradient = torch.func.grad(lambda q: rg.attend(q, key, value, pattern=pattern).sum())(query)
    torch.testing.assert_close(gradient, torch.autograd.grad(output.sum(), q)[0])
    torch.testing.assert_close(output.detach(), expected)
    _, tangent = torch.func.jvp(lambda q: rg.attend(q, key, value, pattern=pattern), (query,), (query,))
    assert tangent.abs().max() > 0


def test_views_of_the_other_sign_are_read_as_what_they_are():
    query, key, value = inputs(20)
    expected = rg.attend(query, key, -value)
    for _ in range(2):
        torch.testing.assert_close(rg.attend(query, key, torch._neg_view(value)), expected)
        torch.testing.assert_close(rg.attend(torch._neg_view(query), -key, -value), expected)
