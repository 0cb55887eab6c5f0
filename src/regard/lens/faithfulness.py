"""Faithfulness of an attribution: the change of the prediction when the tokens it selects are removed."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor

from regard.attention.check import check_integer
from regard.errors import ShapeError

# Shares of the tokens that are taken away, of DeYoung et al. 2020, section 4.2, and the whole.
SHARES = (0.01, 0.05, 0.1, 0.2, 0.5)
Predict = Callable[
    [Tensor], Tensor
]  # from (N, L) booleans, True = kept, to the probabilities (N,) of the explained label


@final
@dataclass(frozen=True, kw_only=True)
class Faithfulness:
    """Measures of an attribution.

    Args:
        comprehensiveness: mean fall of the probability as the most important tokens are taken away; larger is better.
        sufficiency: mean fall of the probability when only they are kept; smaller is better.
        deletion: area under the probability as tokens are taken away one share after the other, relative to that of
            the whole input; smaller is better.
    """

    comprehensiveness: float
    sufficiency: float
    deletion: float


def faithfulness(predict: Predict, scores: Tensor, *, shares: Sequence[float] = SHARES) -> Faithfulness:
    """How much of a prediction hangs on the tokens that an attribution puts first.

    Args:
        predict: probability of what is explained, where only some tokens are kept.
        scores: (L,), larger for more important tokens.
        shares: of the tokens that are taken away, or kept; at least one token each.

    Returns:
        The measures.

    Raises:
        ShapeError: scores that are not (L,), with L >= 1.

    Source: DeYoung et al. 2020, arXiv 1911.03429, section 4.2; deletion: Petsiuk et al. 2018, arXiv 1806.07421,
    section 4.
    """
    if scores.dim() != 1 or not len(scores):
        raise ShapeError(f"faithfulness: scores {tuple(scores.shape)}; expected one of each token")
    length, order = len(scores), scores.argsort(descending=True, stable=True)
    counts = [max(1, round(share * length)) for share in shares]
    masks = torch.ones(1 + 2 * len(counts), length, dtype=torch.bool)
    for i, count in enumerate(counts):
        masks[1 + i, order[:count]] = False
        masks[1 + len(counts) + i] = ~masks[1 + i]
    whole, *others = predict(masks).tolist()
    without, only = others[: len(counts)], others[len(counts) :]
    curve = deletion_curve(predict, order)
    area = float((curve[1:] + curve[:-1]).mean()) / 2
    return Faithfulness(
        comprehensiveness=sum(whole - x for x in without) / len(counts),
        sufficiency=sum(whole - x for x in only) / len(counts),
        deletion=area / max(float(curve[0]), 1e-9),
    )


def deletion_curve(predict: Predict, order: Tensor, *, points: int = 10) -> Tensor:
    """The prediction as tokens are taken away in an order, from all to none.

    Args:
        predict: as for `faithfulness`.
        order: (L,), the tokens, the one that goes first first.
        points: steps from all tokens to none; no more than there are tokens.

    Returns:
        (points + 1,).

    Raises:
        ConfigError: points below 1.
    """
    check_integer("deletion_curve", "points", points, 1)
    length = len(order)
    counts = torch.linspace(0, length, min(points, length) + 1).round().long()
    masks = torch.ones(len(counts), length, dtype=torch.bool)
    for i, count in enumerate(counts):
        masks[i, order[:count]] = False
    return predict(masks)


def random_scores(length: int, *, seed: int) -> Tensor:
    """Scores in a random order, the baseline of any attribution: (length,)."""
    return torch.rand(length, generator=torch.Generator().manual_seed(seed))


def leave_one_out(predict: Predict, length: int) -> Tensor:
    """The fall of the prediction as each token alone is taken away: (length,)."""
    masks = torch.cat([torch.ones(1, length, dtype=torch.bool), ~torch.eye(length, dtype=torch.bool)])
    whole, *without = predict(masks)
    return whole - torch.stack(without)
