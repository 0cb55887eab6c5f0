"""Convolutions of feature maps: residual blocks, a convolutional stem, and convolutions beside self-attention.

Layout: feature maps (B, C, H, W).
"""

from collections.abc import Callable
from functools import partial
from itertools import pairwise
from typing import final

import torch
from torch import Tensor, nn

from regard.attention.check import check_integer
from regard.errors import ConfigError
from regard.layers.multi_head_attention import MultiHeadAttention
from regard.layers.relative_positions import Grid, relative_positions

MakeNorm = Callable[[int], nn.Module]  # from the number of features


@final
class ResidualConvolution(nn.Module):
    """Two convolutions of 3 x 3, each after a norm and ReLU, beside the input.

    Args:
        inputs: features of the input.
        outputs: features of the output.
        stride: 2 halves the sides.
        make_norm: factory of a norm of so many features.
        second: another second map, from `outputs` to `outputs` features; None for a convolution.

    Source: He et al. 2016, "Identity Mappings in Deep Residual Networks", arXiv 1603.05027, figure 1 b.
    """

    def __init__(
        self,
        inputs: int,
        outputs: int,
        stride: int,
        *,
        make_norm: MakeNorm = nn.BatchNorm2d,
        second: nn.Module | None = None,
    ) -> None:
        super().__init__()
        self.first = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.second = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False) if second is None else second
        self.norms = nn.ModuleList(make_norm(size) for size in (inputs, outputs))
        self.shortcut = None if inputs == outputs and stride == 1 else nn.Conv2d(inputs, outputs, 1, stride, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """The sum of both branches, (B, outputs, H / stride, W / stride)."""
        own = x if self.shortcut is None else self.shortcut(x)
        x = self.first(torch.relu(self.norms[0](x)))
        result: Tensor = own + self.second(torch.relu(self.norms[1](x)))
        return result


@final
class ConvolutionStem(nn.Sequential):
    """Convolutions of 3 x 3 and stride 2, each with batch norm and ReLU, then one of 1 x 1: patches as feature maps.

    The last of the strided convolutions has `embed_dim` features, and each before it half of those after it.

    Args:
        num_channels: C of the pictures.
        embed_dim: D, the features of a patch.
        patch_size: P, a power of 2: the sides shrink by it.

    Raises:
        ConfigError: a patch_size that is not a power of 2 above 1, or an embed_dim that cannot be halved so often.

    Source: Xiao et al. 2021, "Early Convolutions Help Transformers See Better", arXiv 2106.14881, section 3.

    >>> ConvolutionStem(3, 16, 4)(torch.zeros(2, 3, 8, 12)).shape
    torch.Size([2, 16, 2, 3])
    """

    def __init__(self, num_channels: int, embed_dim: int, patch_size: int) -> None:
        steps = patch_size.bit_length() - 1
        if patch_size != 2**steps or not steps or embed_dim % 2 ** (steps - 1):
            raise ConfigError(
                f"ConvolutionStem: patch_size={patch_size} with embed_dim={embed_dim}; expected a power of 2 above "
                "1, and features that can be halved at each stride but one"
            )
        sizes = [num_channels, *(embed_dim // 2**i for i in reversed(range(steps)))]
        parts: list[nn.Module] = []
        for before, after in pairwise(sizes):
            parts += [nn.Conv2d(before, after, 3, 2, 1, bias=False), nn.BatchNorm2d(after), nn.ReLU()]
        super().__init__(*parts, nn.Conv2d(embed_dim, embed_dim, 1))


@final
class GridAttention(nn.Module):
    """Self-attention of the cells of a feature map.

    Args:
        inputs: features of the input.
        outputs: features of the output.
        attention_dim: features of queries, keys and values, of all heads together.
        num_heads: H, a divisor of attention_dim.
        grid: rows and columns that the relative positions are made for.
        positions: "relative-bias", "relative-key", or "none".

    Raises:
        ConfigError: sizes that don't go together, or unknown positions.
    """

    def __init__(
        self, inputs: int, outputs: int, *, attention_dim: int, num_heads: int, grid: Grid, positions: str = "none"
    ) -> None:
        super().__init__()
        for name, size in (("attention_dim", attention_dim), ("num_heads", num_heads)):
            check_integer("GridAttention", name, size, 1)
        if attention_dim % num_heads:
            raise ConfigError(f"GridAttention: attention_dim={attention_dim} is no multiple of num_heads={num_heads}")
        head_dim = attention_dim // num_heads
        self.attention = MultiHeadAttention(inputs, num_heads, head_dim=head_dim, output_dim=outputs)
        relative = positions != "none"
        self.positions = relative_positions(positions, num_heads, head_dim, grid) if relative else None

    def forward(self, x: Tensor) -> Tensor:
        """The attention's output in each cell, (B, outputs, H, W)."""
        grid = (x.shape[2], x.shape[3])
        bias = None if self.positions is None else partial(self.positions, grid=grid)
        output: Tensor = self.attention(x.flatten(2).transpose(1, 2), bias=bias)
        return output.transpose(1, 2).unflatten(2, grid)


@final
class AugmentedConvolution(nn.Module):
    """Attention-augmented convolution: features of a convolution of 3 x 3 beside those of self-attention.

    Keys and values have as many features; the source has more of keys. There is no stride.

    Args:
        inputs: features of the input.
        outputs: features of the output, the attention's among them.
        attention_dim: the attention's, below outputs.
        attention: num_heads, grid and positions of `GridAttention`.

    Raises:
        ConfigError: sizes that don't go together.

    Source: Bello et al. 2019, "Attention Augmented Convolutional Networks", arXiv 1904.09925, section 3.2.
    """

    def __init__(self, inputs: int, outputs: int, *, attention_dim: int, **attention: object) -> None:
        super().__init__()
        if attention_dim >= outputs:
            raise ConfigError(
                f"AugmentedConvolution: attention_dim={attention_dim} leaves the convolution none of the {outputs} "
                "features of the output; expected fewer"
            )
        self.convolution = nn.Conv2d(inputs, outputs - attention_dim, 3, 1, 1, bias=False)
        self.attention = GridAttention(inputs, attention_dim, attention_dim=attention_dim, **attention)  # type: ignore[arg-type]

    def forward(self, x: Tensor) -> Tensor:
        """Features of the convolution, then of the attention, (B, outputs, H, W)."""
        return torch.cat([self.convolution(x), self.attention(x)], 1)


@final
class NonLocalBlock(nn.Module):
    """Non-local block: self-attention of the cells beside the input.

    As the residual blocks, it normalizes its input: x + W_z attention(norm(x)). W_z is 0 at first, so that the block
    can be put into any network. The products of queries and keys are scaled by 1 / sqrt(E), unlike the source's.

    Args:
        size: features of the input and output.
        make_norm: factory of a norm of so many features.
        attention: attention_dim, num_heads, grid and positions of `GridAttention`; the source has one head and half of
            the features.

    Raises:
        ConfigError: sizes that don't go together.

    Source: Wang et al. 2018, "Non-local Neural Networks", arXiv 1711.07971, sections 3.2 ("embedded Gaussian") and 3.3,
    equation 6.
    """

    def __init__(self, size: int, *, make_norm: MakeNorm = nn.BatchNorm2d, **attention: object) -> None:
        super().__init__()
        self.norm = make_norm(size)
        self.attention = GridAttention(size, size, **attention)  # type: ignore[arg-type]
        nn.init.zeros_(self.attention.attention.output_proj.weight)

    def forward(self, x: Tensor) -> Tensor:
        """The sum of the input and its attention, (B, C, H, W)."""
        result: Tensor = x + self.attention(self.norm(x))
        return result
