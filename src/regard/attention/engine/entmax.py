"""Entmax weights, [(alpha - 1) score - threshold]_+ ^ (1 / (alpha - 1)) with sum 1, and their derivatives.

Scores are taken relative to the row max. Then t = -threshold is the largest weight to the power alpha - 1, and a
weight is t^(1 / (alpha - 1)) [1 + (alpha - 1) score / t]_+ ^ (1 / (alpha - 1)). The bracket is relative to t, so it is
accurate for a small t (equal scores and a large alpha) and, as log1p, for a small alpha - 1.
"""

import math

import torch
from torch import Tensor

from regard.attention.engine.tracing import constant, is_transformed

ROUNDING = 4  # width of the interval around the root t, in units of rounding
MAX_KEYS = 2**32  # upper bound, so that the number of bisection steps does not depend on the number of keys
NEAR_SOFTMAX = 0.25  # alpha - 1 below which log1p is more accurate than a power


def threshold(below: Tensor, alpha: float | Tensor) -> Tensor:
    """Threshold of each row, by bisection, without derivatives.

    The sum of the weights increases with t. At t = 1 it is at least 1, because the largest weight is 1; at
    t = S^(1 - alpha) it is at most 1, because no weight exceeds 1 / S. Bisection of log t between these bounds ends at
    a relative width of two units of rounding for every alpha, length and range of scores.

    Args:
        below: scores minus the row max, (B, H, L, S).
        alpha: a number, or a tensor that broadcasts to `below`.

    Returns:
        (B, H, L, 1), negative: the end of the last interval at which the sum is at least 1.
    """
    slope, limits = alpha - 1, torch.finfo(below.dtype)
    # Width of the interval of log t; for smaller t only keys equal to the max have weight.
    widest = -math.log(limits.tiny)
    if not isinstance(slope, Tensor):
        widest = min(widest, slope * math.log(MAX_KEYS))
    high = torch.ones_like(below[..., :1])
    low = torch.exp(-slope * math.log(below.shape[-1]) * high).clamp(min=limits.tiny)
    for _ in range(max(1, math.ceil(math.log2(widest / (2 * limits.eps))))):
        middle = low.sqrt() * high.sqrt()
        over = _weights(below, slope, middle).sum(-1, keepdim=True) >= 1
        low, high = torch.where(over, low, middle), torch.where(over, middle, high)
    return -high


def weights(below: Tensor, alpha: float | Tensor, threshold: Tensor) -> Tensor:
    """Weights of whole rows, without derivatives.

    There may be no floating-point threshold at which the weights sum to 1: with alpha above 2, a weight jumps from 0 to
    eps^(1 / (alpha - 1)) between adjacent floats. The result is therefore an interpolation, with sum 1, of the weights
    at both ends of an interval around the root, a few units of rounding wide. Each interpolated weight lies between the
    two, so it is exact for scores perturbed by a few units of rounding of their distance to the max. Division by the
    sum alone would not be exact: it scales all scores by the sum to the power 1 - alpha, which is far from 1 if a
    weight has jumped. The interpolation is still divided by its sum, which differs from 1 by rounding only, or if t
    underflows; in that case all weights are equal or 0.

    Args:
        below: scores minus the row max, (B, H, L, S).
        alpha: a number, or a tensor that broadcasts to `below`.
        threshold: result of `threshold`, (B, H, L, 1).

    Returns:
        (B, H, L, S); 0 in rows whose scores are all hidden.
    """
    upper, lower = (
        _weights(below, alpha - 1, -threshold * (1 - n * torch.finfo(below.dtype).eps)) for n in (0, ROUNDING)
    )
    lower_sum, upper_sum = (x.sum(-1, keepdim=True) for x in (lower, upper))
    difference = upper_sum - lower_sum
    fraction = ((1 - lower_sum) / torch.where(difference > 0, difference, 1.0)).clamp(0, 1)
    interpolated = lower + fraction * (upper - lower)
    total = interpolated.sum(-1, keepdim=True)
    return interpolated / torch.where(total == 0, 1.0, total)


def _weights(below: Tensor, slope: float | Tensor, t: Tensor) -> Tensor:
    """Weights for a given t, which need not sum to 1."""
    x, power = slope * below / t, 1 / slope
    if isinstance(slope, Tensor) or slope < NEAR_SOFTMAX:
        return t**power * torch.exp(torch.log1p(x.clamp(min=-1)) * power)
    return t**power * (1 + x).clamp(min=0) ** power


def with_derivatives(weights: Tensor, scores: Tensor, alpha: float | Tensor) -> Tensor:
    """Weights with derivatives with respect to scores and alpha, up to third order; the values are unchanged.

    A weight w is a power of its root w^(alpha - 1). The change of the roots follows from the scores, and that of the
    threshold from the condition that the sum stays 1, by three steps of Newton's method with the initial slope: each
    step adds one order. All changes are relative to the key with the largest derivative, whose weight is 1 minus the
    others. With alpha above 2 this is the smallest weight, whose derivative may be 10^10 times that of the largest;
    differences of such numbers would cancel.

    Args:
        weights: (B, H, L, S), without derivatives.
        scores: the scores, (B, H, L, S).
        alpha: a number, or a tensor that broadcasts to the scores.

    Returns:
        (B, H, L, S).
    """
    if not (torch.compiler.is_compiling() or torch.is_grad_enabled() or is_transformed()):
        return weights
    slope = alpha - 1
    fixed = constant(slope) if isinstance(slope, Tensor) else slope
    is_positive = weights > 0
    positive = torch.where(is_positive, weights, 1.0)
    # Inverse of the root; clamped far beyond rounding error, so that sums stay finite.
    inverse = torch.where(is_positive, (positive**-fixed).clamp(max=torch.finfo(weights.dtype).max ** 0.6), 0.0)
    reaction = weights * inverse
    is_first = torch.arange(scores.shape[-1], device=scores.device) == reaction.argmax(-1, keepdim=True)
    distance = torch.where(is_positive, scores - torch.where(is_first, scores, 0.0).sum(-1, keepdim=True), 0.0)
    raised = slope * distance - constant(slope * distance)
    total = reaction.sum(-1, keepdim=True) / fixed
    total = torch.where(total > 0, total, 1.0)

    def change(lowered: Tensor) -> Tensor:
        ratio = (1 + (raised - lowered) * inverse) ** (1 / slope)
        if isinstance(slope, Tensor):
            ratio = ratio * torch.exp((fixed / slope - 1) * torch.log(positive))
        return weights * ratio - weights

    lowered = torch.zeros_like(total)
    for _ in range(3):
        lowered = lowered + change(lowered).sum(-1, keepdim=True) / total
    others = torch.where(is_first, 0.0, change(lowered))
    return weights + torch.where(is_first, -others.sum(-1, keepdim=True), others)
