"""Relevance of input tokens for one output, from weights and their gradients."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from regard.errors import ConfigError


class Attended(NamedTuple):
    """Weights of one attention and the gradient of an output with respect to them, both (B, H, L, S)."""

    weights: Tensor
    gradient: Tensor


def weight_gradient(output_grad: Tensor, value: Tensor) -> Tensor:
    """Gradient with respect to the weights of a mixture of values.

    Args:
        output_grad: (B, H, L, V), the gradient with respect to the attention's outputs.
        value: (B, G, S, V), where G divides H.

    Returns:
        (B, H, L, S).
    """
    heads, groups = output_grad.shape[1], value.shape[1]
    return output_grad @ value.repeat_interleave(heads // groups, 1).to(output_grad.dtype).mT


def weighted_gradient(attended: Attended) -> Tensor:
    """Positive part of weights times gradients, mean of the heads: (B, L, S).

    Source: Chefer et al. 2021, arXiv 2103.15679, equation 5.
    """
    return (attended.weights * attended.gradient).clamp(min=0).mean(1)


def relevance(layers: Sequence[Attended]) -> Tensor:
    """Relevance of each input token for each token of the last layer of an encoder.

    R starts as the identity; each layer adds what it carries: R = R + A R, with A the positive part of weights times
    gradients, mean of the heads.

    Args:
        layers: of each self-attention, first layer first.

    Returns:
        (B, L, L): the row of the token that an output is read from, such as the class token, has the scores.

    Raises:
        ConfigError: no layer.

    Source: Chefer et al. 2021, arXiv 2103.15679, equations 5 and 6.
    """
    if not layers:
        raise ConfigError("relevance: got no layers; expected at least one")
    length = layers[0].weights.shape[-1]
    total = torch.eye(length, dtype=layers[0].weights.dtype).repeat(layers[0].weights.shape[0], 1, 1)
    for layer in layers:
        total = total + weighted_gradient(layer) @ total
    return total


def cross_relevance(encoder: Sequence[Attended], decoder: Sequence[tuple[Attended, Attended]]) -> Tensor:
    """Relevance of source tokens for target positions of an encoder-decoder.

    Args:
        encoder: of each self-attention.
        decoder: of each layer, its self-attention and cross-attention.

    Returns:
        (B, T, S).

    Raises:
        ConfigError: no decoder layer.

    Source: Chefer et al. 2021, arXiv 2103.15679, equations 6 to 11.
    """
    if not decoder:
        raise ConfigError("cross_relevance: got no decoder layers; expected at least one")
    batch, _, targets, sources = decoder[0][1].weights.shape
    dtype = decoder[0][1].weights.dtype
    source = relevance(encoder) if encoder else torch.eye(sources, dtype=dtype).repeat(batch, 1, 1)
    own = torch.eye(targets, dtype=dtype).repeat(batch, 1, 1)
    cross = torch.zeros(batch, targets, sources, dtype=dtype)
    for self_attention, cross_attention in decoder:
        mixing = weighted_gradient(self_attention)
        cross = cross + mixing @ cross
        own = own + mixing @ own
        cross = cross + _normalized(own).mT @ weighted_gradient(cross_attention) @ _normalized(source)
    return cross


def _normalized(total: Tensor) -> Tensor:
    """Relevance without its identity, rows scaled to sum to 1, and the identity again.

    Source: Chefer et al. 2021, arXiv 2103.15679, equations 8 and 9.
    """
    eye = torch.eye(total.shape[-1], dtype=total.dtype)
    rest = total - eye
    sums = rest.sum(-1, keepdim=True)
    return torch.where(sums > 0, rest / torch.where(sums > 0, sums, 1.0), 0.0) + eye
