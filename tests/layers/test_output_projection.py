"""Cross entropy in chunks against PyTorch's on all logits."""

import pytest
import torch
from torch.nn.functional import cross_entropy

from regard.layers import output_projection
from regard.layers.output_projection import IGNORED, OutputProjection

N, F = 23, 8


def rows(dtype=torch.float64):
    generator = torch.Generator().manual_seed(0)
    hidden, weight, bias = (torch.randn(s, generator=generator, dtype=dtype) for s in ((5, 11, F), (N, F), (N,)))
    labels = torch.randint(N, (5, 11), generator=generator)
    labels[1, 3:] = labels[4, 10:] = IGNORED
    return [x.requires_grad_() for x in (hidden, weight, bias)], labels


def gradients(loss, inputs):
    return torch.autograd.grad(loss, [x for x in inputs if x is not None], retain_graph=True)


@pytest.mark.parametrize("scale", [1.0, 0.25])
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("chunk", [1, N * 7, 10**6])  # one row, some, all
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_sums_and_gradients_are_those_of_all_logits(smoothing, chunk, bias, scale, monkeypatch):
    monkeypatch.setattr(output_projection, "CHUNK", chunk)
    (hidden, weight, offset), labels = rows()
    projection = OutputProjection(weight, offset if bias else None, scale)
    logits = projection.logits(hidden).flatten(0, 1)
    assert torch.equal(logits, torch.nn.functional.linear(hidden * scale, weight, projection.bias).flatten(0, 1))
    expected = cross_entropy(logits, labels.flatten(), label_smoothing=smoothing, ignore_index=IGNORED, reduction="sum")
    plain = cross_entropy(logits, labels.flatten(), ignore_index=IGNORED, reduction="sum")
    loss = projection.cross_entropy(hidden, labels, label_smoothing=smoothing)
    assert loss.count == int((labels != IGNORED).sum())
    assert not loss.plain.requires_grad
    torch.testing.assert_close(loss.smoothed, expected, rtol=1e-12, atol=0)
    torch.testing.assert_close(loss.plain, plain, rtol=1e-12, atol=0)
    inputs = (hidden, weight, projection.bias)
    for found, right in zip(gradients(loss.smoothed / 7, inputs), gradients(expected / 7, inputs), strict=True):
        torch.testing.assert_close(found, right)
    with torch.no_grad():
        torch.testing.assert_close(projection.cross_entropy(hidden, labels).plain, plain, rtol=1e-12, atol=0)


def test_no_label_counts():
    (hidden, weight, bias), labels = rows()
    loss = OutputProjection(weight, bias).cross_entropy(hidden, torch.full_like(labels, IGNORED))
    assert loss.count == 0
    assert loss.smoothed.item() == 0
    assert all(bool((g == 0).all()) for g in gradients(loss.smoothed, (hidden, weight, bias)))


def test_half_precision_is_summed_in_float32():
    (hidden, weight, bias), labels = rows(torch.float32)
    projection = OutputProjection(weight, bias)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        low = projection.cross_entropy(hidden, labels, label_smoothing=0.1)
    high = projection.cross_entropy(hidden, labels, label_smoothing=0.1)
    assert low.plain.dtype == torch.float32
    torch.testing.assert_close(low.plain, high.plain, rtol=0.02, atol=0)
    for found, right in zip(*(gradients(x.smoothed, (hidden, weight, bias)) for x in (low, high)), strict=True):
        assert found.dtype == torch.float32
        torch.testing.assert_close(found, right, rtol=0.1, atol=0.05)


def test_logits_of_a_call_without_gradients_have_none():
    (_, weight, bias), _ = rows()
    with torch.no_grad():
        projection = OutputProjection(weight, bias).as_called()
    assert not projection.logits(torch.randn(2, F, dtype=torch.float64)).requires_grad
    assert OutputProjection(weight, bias).as_called().logits(torch.randn(2, F, dtype=torch.float64)).requires_grad
