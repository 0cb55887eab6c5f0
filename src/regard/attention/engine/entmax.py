"""Rows of weights [(alpha - 1) score - threshold]_+ ^ (1 / (alpha - 1)) that sum to 1, and their derivatives.

With scores measured from the row's largest, t = -threshold is the largest weight to the power alpha - 1, and a weight
is t^(1 / (alpha - 1)) [1 + (alpha - 1) score / t]_+ ^ (1 / (alpha - 1)): the bracket is relative to t, so it keeps its
digits where t is small (equal scores and a large alpha) and where alpha - 1 is (as log1p).
"""

import math

import torch
from torch import Tensor

from regard.attention.engine.tracing import constant, transformed

ROUNDING = 4  # units of rounding of t between which its root is known
MOST_KEYS = 2**32  # a bound, so that how often the interval is halved does not depend on the number of keys
NEAR_SOFTMAX = 0.25  # alpha - 1 below which a power loses digits that log1p keeps


def threshold(below: Tensor, alpha: float | Tensor) -> Tensor:
    """The threshold of rows, by bisection, without derivatives.

    The sum of the weights grows with t. At 1 it is 1 or more, because the largest weight is; at S^(1 - alpha) it is 1
    or less, because no weight is above 1 / S. Halving the logarithm between them ends at a relative width of two units
    of rounding for every alpha, length and spread of scores.

    Args:
        below: scores less the row's largest, (B, H, L, S).
        alpha: a number, or a tensor that broadcasts against `below`.

    Returns:
        (B, H, L, 1), negative: the end of the last interval at which the sum is 1 or more.
    """
    slope, limits = alpha - 1, torch.finfo(below.dtype)
    widest = -math.log(
        limits.tiny
    )  # of the interval's logarithm; below that, only keys as good as the best have weight
    if not isinstance(slope, Tensor):
        widest = min(widest, slope * math.log(MOST_KEYS))
    high = torch.ones_like(below[..., :1])
    low = torch.exp(-slope * math.log(below.shape[-1]) * high).clamp(min=limits.tiny)
    for _ in range(max(1, math.ceil(math.log2(widest / (2 * limits.eps))))):
        middle = low.sqrt() * high.sqrt()
        over = _weights(below, slope, middle).sum(-1, keepdim=True) >= 1
        low, high = torch.where(over, low, middle), torch.where(over, middle, high)
    return -high


def weights(below: Tensor, alpha: float | Tensor, level: Tensor) -> Tensor:
    """The weights of whole rows, without derivatives.

    No float need be a threshold at which they sum to 1: with alpha above 2 a weight jumps from 0 to eps^(1/(alpha - 1))
    between one float and the next. So they are mixed from those at both ends of an interval around the root that is a
    few units of rounding wide, such that they sum to 1. A mixture lies between the two for each key, so it is exact for
    scores that differ from the given ones by a few units of rounding of their distance to the largest. Dividing by the
    sum would not be: it scales all scores by the sum to the power 1 - alpha, which is far from 1 where one weight has
    jumped. The mixture is divided by its own sum, which is 1 but for rounding, or where t has left the range of floats;
    there all weights are equal or 0.

    Args:
        below: scores less the row's largest, (B, H, L, S).
        alpha: a number, or a tensor that broadcasts against `below`.
        level: what `threshold` gave, (B, H, L, 1).

    Returns:
        (B, H, L, S). Rows whose scores are all hidden get 0.
    """
    upper, lower = (_weights(below, alpha - 1, -level * (1 - n * torch.finfo(below.dtype).eps)) for n in (0, ROUNDING))
    least, most = (x.sum(-1, keepdim=True) for x in (lower, upper))
    apart = most - least
    share = ((1 - least) / torch.where(apart > 0, apart, 1.0)).clamp(0, 1)
    mixed = lower + share * (upper - lower)
    total = mixed.sum(-1, keepdim=True)
    return mixed / torch.where(total == 0, 1.0, total)


def _weights(below: Tensor, slope: float | Tensor, t: Tensor) -> Tensor:
    """Weights at a given t."""
    x, power = slope * below / t, 1 / slope
    if isinstance(slope, Tensor) or slope < NEAR_SOFTMAX:
        return t**power * torch.exp(torch.log1p(x.clamp(min=-1)) * power)
    return t**power * (1 + x).clamp(min=0) ** power


def with_derivatives(weights: Tensor, scores: Tensor, alpha: float | Tensor) -> Tensor:
    """The weights as a function of scores and alpha: the same values, with derivatives up to the third.

    A weight w is a power of its root w^(alpha - 1). How the roots move is known from the scores, and the threshold
    from the sum, which stays 1, by three steps of Newton's method with the first slope: each adds an order. Everything
    moves relative to the key whose weight reacts most, which takes what the others leave. With alpha above 2 it is the
    smallest weight, whose derivative may be 10^10 times that of the largest: as a difference of such numbers theirs
    would be lost.

    Args:
        weights: (B, H, L, S), without derivatives.
        scores: what they are made from.
        alpha: a number, or a tensor that broadcasts against the scores.

    Returns:
        (B, H, L, S).
    """
    if not (torch.compiler.is_compiling() or torch.is_grad_enabled() or transformed()):
        return weights
    slope = alpha - 1
    fixed = constant(slope) if isinstance(slope, Tensor) else slope
    some = weights > 0
    positive = torch.where(some, weights, 1.0)
    # Of a root; bounded far beyond what rounding can tell apart, so that sums stay finite.
    inverse = torch.where(some, (positive**-fixed).clamp(max=torch.finfo(weights.dtype).max ** 0.6), 0.0)
    reaction = weights * inverse
    is_first = torch.arange(scores.shape[-1], device=scores.device) == reaction.argmax(-1, keepdim=True)
    distance = torch.where(some, scores - torch.where(is_first, scores, 0.0).sum(-1, keepdim=True), 0.0)
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
