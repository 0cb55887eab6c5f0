"""Normalizers: functions from a row of scores to a row of attention weights.

A normalizer computes weights in two steps: first the row's `RowStats`, the max and an offset (the log-sum of softmax,
the threshold of entmax); then each weight from its score and the row's stats. The max is a constant without gradient.
Softmax's offset carries a gradient, so a backend may process a row in tiles. A sparse normalizer needs whole rows in
both steps: its weights carry the whole gradient, its offset none. Hidden scores are -inf and get weight 0.
"""

from abc import ABC, abstractmethod
from typing import NamedTuple, final

import torch
from torch import Tensor
from torch.nn import functional

from regard.attention.check import check_number, check_tensor, show, smallest
from regard.attention.engine import entmax
from regard.attention.engine.tracing import constant
from regard.attention.prior import Prior
from regard.attention.value import Value, per_head, tensor_field, value
from regard.errors import ConfigError, UnsupportedError


class RowStats(NamedTuple):
    """Row max and offset of the scores, from which each weight follows: two tensors (B, H, L, 1).

    The offset is relative to the max: log of the sum of exp(score - max) for `Softmax`, the threshold for `Entmax` and
    `Sparsemax`, and 0 for `Sigmoid`. The log-sum-exp of a softmax row is max + offset.
    """

    max: Tensor
    offset: Tensor


class Normalizer(Value, ABC):
    """Base class of the normalizers."""

    @abstractmethod
    def row_stats(self, scores_BHLS: Tensor) -> RowStats:
        """Max and offset of whole rows of scores."""

    @abstractmethod
    def weights(self, scores_BHLS: Tensor, row: RowStats) -> Tensor:
        """Weights (B, H, L, S) of the scores; 0 in a row whose scores are all -inf."""

    @property
    def draws(self) -> bool:
        """Whether the weights are sampled with the seed of the call."""
        return False

    def drawn(self, words: Tensor, dtype: torch.dtype) -> "Normalizer":
        """The normalizer with its noise for some rows and keys, from random 32-bit words (B, H, L, S)."""
        return self

    def in_evaluation(self) -> "Normalizer":
        """The normalizer without sampling."""
        return self

    def log_prob(self, scores_BHLS: Tensor) -> Tensor:
        """Log-probability (B, H, L) of each row's choice, where `no_log_prob` is None; 0 in a row without a key."""
        raise UnsupportedError(f"{self.no_log_prob}")

    @property
    def no_entropy(self) -> str | None:
        """Reason why the entropy of a row is undefined; None if it is defined."""
        return None

    @property
    def no_log_prob(self) -> str | None:
        """Reason why there is no log-probability of a choice; None if there is one."""
        return f"{type(self).__name__} chooses no key; Hard() does"

    @property
    def no_log_sum_exp(self) -> str | None:
        """Reason why the log-sum-exp of a row is undefined; None if it is defined."""
        return f"{type(self).__name__} does not exponentiate its scores"


@final
@value
class Softmax(Normalizer):
    """Softmax of each row, optionally with an attention sink: a logit in the denominator that has no value.

    Args:
        sink: logit (H,) or () added to the denominator only, so that a head may attend to nothing; None for none.
        prior: factor on the weights, applied after normalization without renormalizing; None for none.

    Raises:
        ShapeError: a sink that is not a tensor.
        ConfigError: a prior that is not a `Prior`.

    Source: the sink: Miller 2023, "Attention is off by one", and OpenAI 2025, arXiv 2508.10925, section 2.2; the
    prior: Luong et al. 2015, arXiv 1508.04025, equation 10.
    """

    sink: Tensor | None = tensor_field("H", default=None)
    prior: Prior | None = None

    def __post_init__(self) -> None:
        if self.sink is not None:
            check_tensor("Softmax", "sink", self.sink)
        if self.prior is not None and not isinstance(self.prior, Prior):
            raise ConfigError(f"Softmax: prior={show(self.prior)} is not a Prior; expected one such as Gaussian(...)")

    def row_stats(self, scores_BHLS: Tensor) -> RowStats:
        row_max = scores_BHLS.amax(-1, keepdim=True)
        sink = None if self.sink is None else per_head(self.sink, scores_BHLS.dtype)
        if isinstance(sink, Tensor):
            row_max = torch.maximum(row_max, sink)
        row_max = finite(constant(row_max))
        total = torch.exp(scores_BHLS - row_max).sum(-1, keepdim=True)
        if isinstance(sink, Tensor):
            total = total + torch.exp(sink - row_max)
        return RowStats(row_max, safe_log(total))

    def weights(self, scores_BHLS: Tensor, row: RowStats) -> Tensor:
        return torch.exp(scores_BHLS - row.max - finite(row.offset))

    @property
    def no_entropy(self) -> str | None:
        return None if self.prior is None else "weights multiplied by a prior do not sum to 1"

    @property
    def no_log_sum_exp(self) -> str | None:
        return None


@final
@value
class Entmax(Normalizer):
    """Sparse weights: [(alpha - 1) score - threshold]_+ ^ (1 / (alpha - 1)), the threshold such that they sum to 1.

    The limit alpha -> 1 is softmax, alpha = 2 is sparsemax; a larger alpha is sparser.

    Args:
        alpha: a number > 1, or a tensor (H,) or (), which may be learned. With a large alpha, small weights depend on
            the last digits of the scores: two scores that agree to 6 digits may get weights 0.2 and 0. Rows still sum
            to 1.

    Raises:
        ConfigError: an alpha that is not above 1.

    Source: Peters et al. 2019, arXiv 1905.05702, section 3, equation 8; a learned alpha: Correia et al. 2019,
    arXiv 1909.00015, section 3.
    """

    alpha: float | Tensor = tensor_field("H")

    def __post_init__(self) -> None:
        check_number("Entmax", "alpha", self.alpha, " above 1")
        minimum = smallest(self.alpha)
        if not minimum > 1:
            raise ConfigError(f"Entmax: alpha={minimum} must be above 1 (toward 1 it is Softmax(), 2 is Sparsemax())")

    def row_stats(self, scores_BHLS: Tensor) -> RowStats:
        scores, alpha = constant(scores_BHLS), self._alpha(scores_BHLS)
        row_max = finite(scores.amax(-1, keepdim=True))
        return RowStats(row_max, entmax.threshold(scores - row_max, alpha))

    def weights(self, scores_BHLS: Tensor, row: RowStats) -> Tensor:
        below = constant(scores_BHLS) - constant(row.max)
        weights = entmax.weights(below, self._alpha(scores_BHLS), constant(row.offset))
        return entmax.with_derivatives(weights, scores_BHLS, per_head(self.alpha, scores_BHLS.dtype))

    def _alpha(self, scores_BHLS: Tensor) -> float | Tensor:
        """alpha without derivatives, shaped to broadcast to the scores."""
        alpha = per_head(self.alpha, scores_BHLS.dtype)
        return constant(alpha) if isinstance(alpha, Tensor) else alpha


@final
@value
class Sparsemax(Normalizer):
    """Projection of the scores on the simplex: [score - threshold]_+, the threshold such that the weights sum to 1.

    Source: Martins and Astudillo 2016, arXiv 1602.02068, section 2, equations 1 to 4.
    """

    def row_stats(self, scores_BHLS: Tensor) -> RowStats:
        return Entmax(2.0).row_stats(scores_BHLS)

    def weights(self, scores_BHLS: Tensor, row: RowStats) -> Tensor:
        return Entmax(2.0).weights(scores_BHLS, row)


@final
@value
class Sigmoid(Normalizer):
    """Elementwise sigmoid, 1 / (1 + exp(-(score + bias))); rows do not sum to 1.

    Args:
        bias: a number, or a tensor (H,) or (). The source uses -log(S), so that the sum of a row is initially near 1.

    Raises:
        ConfigError: a bias that is not finite.

    Source: Ramapuram et al. 2024, arXiv 2409.04431, section 2.
    """

    bias: float | Tensor = tensor_field("H", default=0.0)

    def __post_init__(self) -> None:
        check_number("Sigmoid", "bias", self.bias)

    def row_stats(self, scores_BHLS: Tensor) -> RowStats:
        zero = scores_BHLS.new_zeros(*scores_BHLS.shape[:-1], 1)
        return RowStats(zero, zero)

    def weights(self, scores_BHLS: Tensor, row: RowStats) -> Tensor:
        return torch.sigmoid(scores_BHLS + per_head(self.bias, scores_BHLS.dtype))

    @property
    def no_entropy(self) -> str | None:
        return "Sigmoid is elementwise: a row is not a probability distribution"


@final
@value
class NormalizedSigmoid(Normalizer):
    """Sigmoid of the scores, normalized to sum to 1: sigmoid(score + bias) / sum of sigmoid(score + bias).

    A score far above 0 is worth no more than another one, so the weights are smoother than those of `Softmax`: several
    keys may share a row. Unlike with softmax, adding a number to all scores of a row changes its weights.

    Args:
        bias: a number, or a tensor (H,) or (), which may be learned.

    Raises:
        ConfigError: a bias that is not finite.

    Source: Chorowski et al. 2015, arXiv 1506.07503, section 2.3, "smoothing". The authors' code adds a learned bias.
    """

    bias: float | Tensor = tensor_field("H", default=0.0)

    def __post_init__(self) -> None:
        check_number("NormalizedSigmoid", "bias", self.bias)

    def logits(self, scores_BHLS: Tensor) -> Tensor:
        """Logarithm of the sigmoid: the weights are a softmax of these, which cannot underflow in a whole row."""
        return functional.logsigmoid(scores_BHLS + per_head(self.bias, scores_BHLS.dtype))

    def row_stats(self, scores_BHLS: Tensor) -> RowStats:
        return Softmax().row_stats(self.logits(scores_BHLS))

    def weights(self, scores_BHLS: Tensor, row: RowStats) -> Tensor:
        return Softmax().weights(self.logits(scores_BHLS), row)


def sink_of(normalizer: Normalizer) -> Tensor | None:
    """Sink logits of a softmax; None for none. Backends add them after the keys."""
    return normalizer.sink if isinstance(normalizer, Softmax) else None


def finite(x: Tensor) -> Tensor:
    """x with -inf replaced by 0, for rows without visible keys."""
    return torch.where(x == -torch.inf, 0.0, x)


def safe_log(x: Tensor) -> Tensor:
    """log(x); -inf, with derivative 0, at 0."""
    positive = x > 0
    return torch.where(positive, torch.log(torch.where(positive, x, 1.0)), -torch.inf)
