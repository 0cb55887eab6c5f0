"""Attention rollout: how much of each input token reaches each token of the last layer through all layers."""

from collections.abc import Sequence

import torch
from torch import Tensor

from regard.errors import ConfigError, ShapeError

RESIDUAL = 0.5  # share of a layer's output that is its input


def rollout(layers: Sequence[Tensor], *, residual: float = RESIDUAL) -> Tensor:
    """Attention rollout over self-attention layers.

    Each layer mixes its input by A = residual I + (1 - residual) mean of the heads' weights, its rows scaled to sum to
    1; the rollout is the product of all, last layer first. Causal and grouped attention need nothing special: their
    weights are those of the query heads.

    Args:
        layers: weights (..., H, L, L) of each layer, first layer first.
        residual: share of the residual connection, 0 <= residual <= 1.

    Returns:
        (..., L, L); each row sums to 1.

    Raises:
        ConfigError: no layer, or a residual out of range.
        ShapeError: weights that are not square, or of different lengths.

    Source: Abnar and Zuidema 2020, arXiv 2005.00928, section 3.
    """
    if not layers:
        raise ConfigError("rollout: got no layers; expected the weights of at least one")
    if not 0 <= residual <= 1:
        raise ConfigError(f"rollout: residual={residual} must be from 0 to 1")
    length = layers[0].shape[-1]
    mixed = torch.eye(length, dtype=layers[0].dtype, device=layers[0].device)
    for weights in layers:
        if weights.shape[-2:] != (length, length):
            raise ShapeError(f"rollout: weights {tuple(weights.shape)}; expected (..., heads, {length}, {length})")
        mixed = _mixing(weights, residual) @ mixed
    return mixed


def cross_rollout(encoder: Sequence[Tensor], decoder: Sequence[tuple[Tensor, Tensor]]) -> Tensor:
    """Attention rollout from the target of an encoder-decoder to its source.

    The encoder's rollout carries source tokens to its output. Each decoder layer first mixes target positions, then
    reads the source: R_t = A_self R_t', R_t = residual R_t + (1 - residual) A_cross R_encoder.

    Args:
        encoder: weights (..., H, S, S) of each layer.
        decoder: of each layer, weights of self-attention (..., H, T, T) and cross-attention (..., H, T, S).

    Returns:
        (..., T, S); rows sum to 1, since what a target position has from itself is left out.

    Raises:
        ConfigError: no decoder layer.
        ShapeError: weights of lengths that don't go together.

    Source: after Abnar and Zuidema 2020, arXiv 2005.00928, section 3, which is about encoders.
    """
    if not decoder:
        raise ConfigError("cross_rollout: got no decoder layers; expected the weights of at least one")
    source = rollout(encoder) if encoder else None
    reached = torch.zeros_like(decoder[0][1].mean(-3))
    for own, cross in decoder:
        read = cross.mean(-3) if source is None else cross.mean(-3) @ source
        mixing = _mixing(own, RESIDUAL)
        if mixing.shape[-1] != read.shape[-2]:
            raise ShapeError(f"cross_rollout: self-attention {tuple(own.shape)} beside {tuple(cross.shape)}")
        reached = RESIDUAL * mixing @ reached + (1 - RESIDUAL) * read
    return reached / reached.sum(-1, keepdim=True).clamp(min=torch.finfo(reached.dtype).tiny)


def _mixing(weights: Tensor, residual: float) -> Tensor:
    """One layer's mixing of its inputs, rows scaled to sum to 1."""
    eye = torch.eye(weights.shape[-1], dtype=weights.dtype, device=weights.device)
    mixed = residual * eye + (1 - residual) * weights.mean(-3)
    scaled: Tensor = mixed / mixed.sum(-1, keepdim=True)
    return scaled
