"""Position embeddings: rotary (applied to queries and keys), sinusoidal and learned (added to the tokens).

Positions of a sequence are consecutive: `start`, `start` + 1, ...; in decoding, `start` is the length of the cache.
"""

from typing import final

import torch
from torch import Tensor, nn

from regard.attention.check import check_integer, is_number, show
from regard.attention.engine.tracing import opaque
from regard.errors import ConfigError, ShapeError
from regard.layers.rotary_scaling import RotaryScaling

BASE = 10_000.0  # base of the wavelengths, in both papers


@final
class Rotary(nn.Module):
    """Rotary position embedding (RoPE) of queries and keys.

    Pair i of d / 2 feature pairs is rotated by the angle position * base^(-2 i / d), so that the dot product of a query
    and a key depends on the distance between them. Computed in float32 or float64. It has no parameters.

    Args:
        head_dim: E, size of a head.
        base: base of the wavelengths; larger for longer contexts.
        interleaved: which features form a pair. True: neighbors (0, 1), (2, 3), ..., as in the source, GPT-J and the
            original Llama code; False: one of each half, (0, d/2), (1, d/2 + 1), ..., as in GPT-NeoX and in Llama
            checkpoints of the transformers package.
        fraction: fraction of the features to rotate, 0 < fraction <= 1: the first d = fraction * head_dim; d is even.
        scaling: frequency scaling for contexts longer than in the original training; None for none.

    Raises:
        ConfigError: a base that is not positive, a base <= 1 with a scaling, or an odd number of features to rotate.

    Source: Su et al. 2021, arXiv 2104.09864, section 3.4.2, equation 34; a fraction: Black et al. 2022,
    arXiv 2204.06745, section 2.1.

    >>> rotary = rg.Rotary(head_dim=2)
    >>> rotary(torch.tensor([[[[1.0, 0.0], [1.0, 0.0]]]]), torch.tensor([[0, 1]]))
    tensor([[[[1.0000, 0.0000],
              [0.5403, 0.8415]]]])
    """

    def __init__(
        self,
        head_dim: int,
        *,
        base: float = BASE,
        interleaved: bool = True,
        fraction: float = 1.0,
        scaling: RotaryScaling | None = None,
    ) -> None:
        super().__init__()
        check_integer("Rotary", "head_dim", head_dim, 2)
        _check_base("Rotary", base)
        turned = round(head_dim * fraction)
        if not 0 < fraction <= 1 or turned < 2 or turned % 2 or abs(turned - head_dim * fraction) > 1e-6:
            raise ConfigError(
                f"Rotary: head_dim={head_dim} with fraction={fraction} rotates {head_dim * fraction:g} features; "
                f"expected an even number from 2 to {head_dim}"
            )
        if scaling is not None and base <= 1:
            raise ConfigError(
                f"Rotary: base={base} with scaling={scaling} must be above 1, so that the frequencies differ"
            )
        self.head_dim, self.base, self.interleaved, self.fraction = head_dim, base, interleaved, fraction
        self.turned = turned
        self.scaling = scaling

    def forward(self, x: Tensor, positions: Tensor) -> Tensor:
        """Rotate queries or keys.

        Args:
            x: queries or keys, (B, H, L, E).
            positions: integers, (B or 1, L).

        Returns:
            (B, H, L, E), in the dtype of x.

        Raises:
            ShapeError: heads of another size, or positions that don't match x.
        """
        if x.dim() != 4 or x.shape[-1] != self.head_dim:
            raise ShapeError(
                f"Rotary: x has shape {tuple(x.shape)}; expected (batch, heads, length, head_dim={self.head_dim})"
            )
        if positions.dim() != 2 or positions.shape[1] != x.shape[2] or positions.shape[0] not in (1, x.shape[0]):
            raise ShapeError(
                f"Rotary: positions has shape {tuple(positions.shape)}, but x {tuple(x.shape)}; expected positions "
                f"({x.shape[0]} or 1, {x.shape[2]})"
            )
        dtype = torch.promote_types(x.dtype, torch.float32)
        pair = torch.arange(0, self.turned, 2, dtype=dtype, device=x.device)
        frequency = self.base ** (-pair / self.turned)
        if self.scaling is not None:
            frequency = self.scaling.scaled(frequency, self.base)
        angle_B1Li = positions[:, None, :, None].to(dtype) * frequency
        cos, sin = angle_B1Li.cos(), angle_B1Li.sin()
        if self.scaling is not None and self.scaling.amplitude != 1:
            cos, sin = cos * self.scaling.amplitude, sin * self.scaling.amplitude
        turning, rest = x[..., : self.turned].to(dtype), x[..., self.turned :]
        if self.interleaved:
            first, second = turning[..., 0::2], turning[..., 1::2]
        else:
            first, second = turning.chunk(2, dim=-1)
        pairs = first * cos - second * sin, first * sin + second * cos
        turned = torch.stack(pairs, -1).flatten(-2) if self.interleaved else torch.cat(pairs, -1)
        return torch.cat([turned.to(x.dtype), rest], -1) if self.turned < self.head_dim else turned.to(x.dtype)

    def extra_repr(self) -> str:
        scaling = "" if self.scaling is None else f", scaling={self.scaling}"
        return (
            f"head_dim={self.head_dim}, base={self.base:g}, interleaved={self.interleaved}, "
            f"fraction={self.fraction:g}{scaling}"
        )


@final
class SinusoidalPositions(nn.Module):
    """Sinusoidal position embedding, added to the tokens: x + P.

    P[p, 2i] = sin(p / base^(2i / D)), P[p, 2i + 1] = cos(p / base^(2i / D)). It has no parameters and no
    maximum length.

    Args:
        embed_dim: D, even.
        base: base of the wavelengths.
        interleaved: True: sines and cosines alternate, as in the source; False: all sines in the first half and all
            cosines in the second, as in tensor2tensor and Marian.

    Raises:
        ConfigError: an embed_dim that is not even, or a base that is not positive.

    Source: Vaswani et al. 2017, arXiv 1706.03762, section 3.5.

    >>> rg.SinusoidalPositions(embed_dim=2)(torch.zeros(1, 3, 2))
    tensor([[[ 0.0000,  1.0000],
             [ 0.8415,  0.5403],
             [ 0.9093, -0.4161]]])
    """

    def __init__(self, embed_dim: int, *, base: float = BASE, interleaved: bool = True) -> None:
        super().__init__()
        check_integer("SinusoidalPositions", "embed_dim", embed_dim, 2)
        if embed_dim % 2:
            raise ConfigError(
                f"SinusoidalPositions: embed_dim={embed_dim} must be even: each wavelength has a sine and a cosine"
            )
        _check_base("SinusoidalPositions", base)
        self.embed_dim, self.base, self.interleaved = embed_dim, base, interleaved

    def forward(self, x: Tensor, start: int | Tensor = 0) -> Tensor:
        """Add the position embeddings to the tokens.

        Args:
            x: tokens, (B, L, D).
            start: position of the first token, or integers (B,), one for each sequence.

        Returns:
            (B, L, D), in the dtype of x.

        Raises:
            ShapeError: tokens of another size, or starts of another shape.
        """
        positions_BL = _positions("SinusoidalPositions", x, self.embed_dim, start)
        dtype = torch.promote_types(x.dtype, torch.float32)
        pair = torch.arange(0, self.embed_dim, 2, dtype=dtype, device=x.device)
        angle_BLi = positions_BL[..., None].to(dtype) * self.base ** (-pair / self.embed_dim)
        waves = angle_BLi.sin(), angle_BLi.cos()
        added = torch.stack(waves, -1).flatten(-2) if self.interleaved else torch.cat(waves, -1)
        return x + added.to(x.dtype)

    def extra_repr(self) -> str:
        return f"embed_dim={self.embed_dim}, base={self.base:g}, interleaved={self.interleaved}"


@final
class LearnedPositions(nn.Module):
    """Learned position embedding, added to the tokens: x + weight[position].

    Args:
        num_positions: number of positions, the maximum length.
        embed_dim: D.

    Raises:
        ConfigError: a size below 1.

    Source: Gehring et al. 2017, arXiv 1705.03122, section 3.1.

    >>> rg.LearnedPositions(num_positions=512, embed_dim=8)(torch.zeros(2, 5, 8)).shape
    torch.Size([2, 5, 8])
    """

    def __init__(self, num_positions: int, embed_dim: int) -> None:
        super().__init__()
        check_integer("LearnedPositions", "num_positions", num_positions, 1)
        check_integer("LearnedPositions", "embed_dim", embed_dim, 1)
        self.weight = nn.Parameter(torch.empty(num_positions, embed_dim))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Reset to small normally distributed vectors, as GPT-2 and BERT."""
        nn.init.normal_(self.weight, std=0.02)

    def forward(self, x: Tensor, start: int | Tensor = 0) -> Tensor:
        """Add the position embeddings to the tokens.

        Args:
            x: tokens, (B, L, D).
            start: position of the first token, or integers (B,), one for each sequence.

        Returns:
            (B, L, D), in the dtype of x.

        Raises:
            ShapeError: tokens of another size, starts of another shape, or a position without a vector.
        """
        num_positions, embed_dim = self.weight.shape
        positions_BL = _positions("LearnedPositions", x, embed_dim, start)
        if isinstance(start, Tensor):
            readable = start.device.type == "cpu" and not opaque() and len(start) > 0
            first, last = (int(start.min()), int(start.max())) if readable else (0, 0)
        else:
            first = last = start
        if first < 0 or last + x.shape[1] > num_positions:
            raise ShapeError(
                f"LearnedPositions: the tokens have positions {first} to {last + x.shape[1] - 1}, but the layer "
                f"has vectors for 0 to {num_positions - 1}; shorten the input, or increase num_positions"
            )
        return x + nn.functional.embedding(positions_BL, self.weight).to(x.dtype)

    def extra_repr(self) -> str:
        return f"num_positions={self.weight.shape[0]}, embed_dim={self.weight.shape[1]}"


def _check_base(owner: str, base: float) -> None:
    if not (is_number(base) and base > 0):
        raise ConfigError(f"{owner}: base={show(base)} must be a positive number")


def _positions(owner: str, x: Tensor, embed_dim: int, start: int | Tensor) -> Tensor:
    """Position of each token, (B or 1, L)."""
    if x.dim() != 3 or x.shape[-1] != embed_dim:
        raise ShapeError(f"{owner}: x has shape {tuple(x.shape)}; expected (batch, length, embed_dim={embed_dim})")
    offset = torch.arange(x.shape[1], device=x.device)[None]
    if not isinstance(start, Tensor):
        return offset + start
    if start.shape != (x.shape[0],) or start.is_floating_point() or start.dtype == torch.bool:
        raise ShapeError(
            f"{owner}: start is {start.dtype} of shape {tuple(start.shape)}; expected an int, or integers of shape "
            f"({x.shape[0]},), one for each sequence"
        )
    return offset + start.to(x.device)[:, None]
