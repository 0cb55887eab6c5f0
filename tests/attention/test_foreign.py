"""What an error says to write instead of another library's argument gives what that library gives."""

import torch
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention

import regard as rg

generator = torch.Generator().manual_seed(0)
QUERY, KEY, VALUE = (torch.randn(2, 4, length, 8, generator=generator) for length in (5, 7, 7))
MASK = (torch.rand(5, 7, generator=generator) > 0.3) | (torch.arange(7) == 0)  # each query sees something


def same(found: Tensor, expected: Tensor) -> None:
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)


def test_masks_of_the_function() -> None:
    same(
        rg.attend(QUERY, KEY, VALUE, pattern=rg.Mask(MASK)),
        scaled_dot_product_attention(QUERY, KEY, VALUE, attn_mask=MASK),
    )
    floats = torch.randn(5, 7, generator=generator)
    same(rg.attend(QUERY, KEY, VALUE, bias=floats), scaled_dot_product_attention(QUERY, KEY, VALUE, attn_mask=floats))


def test_causal_and_scale_of_the_function() -> None:
    same(
        rg.attend(QUERY, KEY, VALUE, pattern=rg.Causal(), query_start=0, score=rg.Dot(scale=0.3)),
        scaled_dot_product_attention(QUERY, KEY, VALUE, is_causal=True, scale=0.3),
    )


def test_grouped_heads_of_the_function() -> None:
    key, value = KEY[:, :2], VALUE[:, :2]
    same(rg.attend(QUERY, key, value), scaled_dot_product_attention(QUERY, key, value, enable_gqa=True))


def test_masks_and_weights_of_the_module() -> None:
    torch.manual_seed(0)
    module, x, memory = nn.MultiheadAttention(8, 2, batch_first=True), torch.randn(2, 5, 8), torch.randn(2, 7, 8)
    layer = rg.MultiHeadAttention.from_torch(module)
    padding = torch.arange(7) >= torch.tensor([7, 4])[:, None]
    expected, weights = module(
        x, memory, memory, attn_mask=~MASK, key_padding_mask=padding, need_weights=True, average_attn_weights=True
    )
    pattern = rg.Mask.from_hidden(~MASK) & rg.Mask.from_hidden(padding[:, None, None])
    output, result = layer(x, memory, pattern=pattern, summary=rg.Summary(weights=True))
    same(output, expected)
    same(result.weights.mean(1), weights)
    same(layer(x, memory, pattern=rg.Mask(MASK) & rg.KeyLengths(torch.tensor([7, 4]))), expected)
