"""PyTorch's scaled dot product attention: values and gradients, in float64, through every backend."""

import pytest
import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

import regard as rg

BACKENDS = ["reference", "chunked", "sdpa"]


def numbers(seed: int, *shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).requires_grad_()


QUERY, KEY, VALUE = numbers(1, 2, 6, 11, 8), numbers(2, 2, 6, 13, 8), numbers(3, 2, 6, 13, 5)
GROUPED_KEY, GROUPED_VALUE = numbers(2, 2, 3, 13, 8), numbers(3, 2, 3, 13, 5)
BIAS = numbers(4, 2, 6, 11, 13)
MASK = torch.rand(2, 1, 11, 13, generator=torch.Generator().manual_seed(5)) > 0.4
MASK[..., 0] = True  # PyTorch's rows that see nothing are not defined alike everywhere
AT_THE_END = torch.ones(11, 13, dtype=torch.bool).tril(2)

CASES = {
    "plain": ({}, {}),
    "scale": ({"score": rg.Dot(scale=0.7)}, {"scale": 0.7}),
    "causal from the start": ({"pattern": rg.Causal(), "query_start": 0}, {"is_causal": True}),
    "causal at the end": ({"pattern": rg.Causal()}, {"attn_mask": AT_THE_END}),
    "mask": ({"pattern": rg.Mask(MASK)}, {"attn_mask": MASK}),
    "bias": ({"bias": BIAS}, {"attn_mask": BIAS}),
    "bias and mask": (
        {"bias": BIAS, "pattern": rg.Mask(MASK)},
        {"attn_mask": torch.where(MASK, BIAS, -torch.inf)},
    ),
}


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("grouped", [False, True])
@pytest.mark.parametrize("name", CASES)
def test_values_and_gradients(name: str, grouped: bool, backend: str) -> None:
    ours, theirs = CASES[name]
    given = [QUERY, GROUPED_KEY, GROUPED_VALUE] if grouped else [QUERY, KEY, VALUE]
    learned = [*given, BIAS] if "bias" in name else given
    found = rg.attend(*given, **ours, backend=backend)
    expected = scaled_dot_product_attention(*given, **theirs, enable_gqa=grouped)
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)
    incoming = numbers(6, *found.shape)
    for x, y in zip(
        torch.autograd.grad(found, learned, incoming),
        torch.autograd.grad(expected, learned, incoming, retain_graph=True),
        strict=True,
    ):
        torch.testing.assert_close(x, y, rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize("backend", ["reference", "chunked"])
def test_a_sink_is_a_key_without_value(backend: str) -> None:
    sink = numbers(7, 6)
    # One more key, whose score is the sink and whose value is 0: by a bias on a zero key.
    zero = torch.zeros(2, 6, 1, 1, dtype=torch.float64)
    key, value = torch.cat([KEY, zero.expand(2, 6, 1, 8)], 2), torch.cat([VALUE, zero.expand(2, 6, 1, 5)], 2)
    bias = torch.cat([torch.zeros(6, 11, 13, dtype=torch.float64), sink[:, None, None].expand(6, 11, 1)], -1)
    hidden = torch.cat([MASK, torch.ones(2, 1, 11, 1, dtype=torch.bool)], -1)
    expected = scaled_dot_product_attention(QUERY, key, value, attn_mask=torch.where(hidden, bias, -torch.inf))
    normalizer = rg.Softmax(sink=sink)
    found = rg.attend(QUERY, KEY, VALUE, normalizer=normalizer, pattern=rg.Mask(MASK), backend=backend)
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)
    incoming = numbers(6, *found.shape)
    learned = [QUERY, KEY, VALUE, sink]
    for x, y in zip(
        torch.autograd.grad(found, learned, incoming), torch.autograd.grad(expected, learned, incoming), strict=True
    ):
        torch.testing.assert_close(x, y, rtol=1e-11, atol=1e-11)


def test_log_sum_exp() -> None:
    scores = QUERY @ KEY.transpose(-1, -2) / 8**0.5
    for backend in ("reference", "chunked"):
        result = rg.attend(QUERY, KEY, VALUE, summary=rg.Summary(log_sum_exp=True), backend=backend)[1]
        torch.testing.assert_close(result.log_sum_exp, scores.logsumexp(-1), rtol=1e-12, atol=1e-12)
