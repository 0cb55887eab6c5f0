"""Convolutions with attention beside them, against their definitions."""

from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional

from regard.errors import ConfigError
from regard.layers.convolution_2d import (
    AugmentedConvolution,
    ConvolutionStem,
    GridAttention,
    NonLocalBlock,
    ResidualConvolution,
)

SETTINGS: dict[str, Any] = {"attention_dim": 6, "num_heads": 2, "grid": (3, 5), "positions": "relative-key"}


def picture(features: int) -> torch.Tensor:
    torch.manual_seed(0)
    return torch.randn(2, features, 3, 5, dtype=torch.float64)


@pytest.mark.parametrize(("outputs", "stride"), [(4, 1), (7, 1), (7, 2)])
def test_a_residual_block_is_its_definition(outputs: int, stride: int) -> None:
    x, block = picture(4), ResidualConvolution(4, outputs, stride).double().train()
    normed = functional.relu(functional.batch_norm(x, None, None, training=True))
    first = functional.conv2d(normed, block.first.weight, stride=stride, padding=1)
    normed = functional.relu(functional.batch_norm(first, None, None, training=True))
    expected = functional.conv2d(normed, block.second.weight, padding=1)
    expected += x if block.shortcut is None else functional.conv2d(x, block.shortcut.weight, stride=stride)
    torch.testing.assert_close(block(x), expected)


def test_attention_of_a_grid_is_that_of_its_cells_row_by_row() -> None:
    x, layer = picture(4), GridAttention(4, 7, **SETTINGS).double()
    cells = torch.stack([x[:, :, row, column] for row in range(3) for column in range(5)], 1)
    query = layer.attention.query_proj(cells).unflatten(-1, (2, 3)).transpose(1, 2)
    output = layer.attention(cells, bias=layer.positions(query, (3, 5)))
    torch.testing.assert_close(layer(x)[:, :, 1, 2], output[:, 7])
    assert layer(x).shape == (2, 7, 3, 5)


def test_an_augmented_convolution_has_features_of_both() -> None:
    x, layer = picture(4), AugmentedConvolution(4, 10, **SETTINGS).double()
    output = layer(x)
    torch.testing.assert_close(output[:, :4], functional.conv2d(x, layer.convolution.weight, padding=1))
    torch.testing.assert_close(output[:, 4:], layer.attention(x))
    assert output.shape == (2, 10, 3, 5)


def test_a_non_local_block_starts_as_the_identity() -> None:
    x, block = picture(4), NonLocalBlock(4, **SETTINGS).double()
    torch.testing.assert_close(block(x), x)
    nn.init.normal_(block.attention.attention.output_proj.weight)
    torch.testing.assert_close(block(x), x + block.attention(block.norm(x)))
    assert (block(x) - x).abs().max() > 0.1


def test_a_stem_shrinks_by_the_patch_size() -> None:
    stem = ConvolutionStem(3, 16, 8)
    assert [part.out_channels for part in stem if isinstance(part, nn.Conv2d)] == [4, 8, 16, 16]
    assert stem(torch.zeros(2, 3, 16, 24)).shape == (2, 16, 2, 3)


def test_errors() -> None:
    for size, features in ((6, 16), (1, 16), (8, 6)):
        with pytest.raises(ConfigError, match=f"patch_size={size} with embed_dim={features}"):
            ConvolutionStem(3, features, size)
    with pytest.raises(ConfigError, match="attention_dim=6 is no multiple of num_heads=4"):
        GridAttention(4, 4, **{**SETTINGS, "num_heads": 4})
    with pytest.raises(ConfigError, match="num_heads=0"):
        GridAttention(4, 4, **{**SETTINGS, "num_heads": 0})
    with pytest.raises(ConfigError, match="attention_dim=6 leaves the convolution none of the 6"):
        AugmentedConvolution(4, 6, **SETTINGS)
