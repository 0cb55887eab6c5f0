"""What turns a row of scores into weights.

Every normalizer here works in two steps: a *statistic* of the whole row (softmax's log-sum-exp, entmax's threshold),
then each weight from its own score and that statistic. The statistic is a pair: `shift`, the row's largest score, a
constant; and `level`, relative to the shift. Softmax's level carries the gradient, so a backend may take the row in
pieces. A sparse normalizer takes whole rows in both steps: its weights carry all of the gradient, its level none.
Hidden scores are -inf and get weight 0.
"""

from abc import ABC, abstractmethod
from typing import NamedTuple, final

import torch
from torch import Tensor

from regard.attention.check import check_number, check_tensor, show, smallest
from regard.attention.engine import entmax
from regard.attention.engine.tracing import constant
from regard.attention.prior import Prior
from regard.attention.value import Value, holds, per_head, value
from regard.errors import ConfigError


class Statistic(NamedTuple):
    """What a row's weights depend on besides their own scores: two tensors (B, H, L, 1)."""

    shift: Tensor
    level: Tensor


class Normalizer(Value, ABC):
    """What every normalizer can do."""

    @abstractmethod
    def statistic(self, scores_BHLS: Tensor) -> Statistic:
        """The statistic of whole rows."""

    @abstractmethod
    def weights(self, scores_BHLS: Tensor, row: Statistic) -> Tensor:
        """Weights (B, H, L, S) of the rows' scores. Rows whose scores are all -inf get weights 0."""

    @property
    def no_entropy(self) -> str | None:
        """Why the weights of a row have no entropy; None where they have."""
        return None

    @property
    def no_log_sum_exp(self) -> str | None:
        """Why a row has no log-sum-exp; None where it has."""
        return f"{type(self).__name__} does not exponentiate its scores"


@final
@value
class Softmax(Normalizer):
    """exp(score) over the sum of exp(score) of the row, to which a sink adds a key that has no value.

    Args:
        sink: a logit (H,) or () that joins the denominator only, so that a head may attend to nothing; None for none.
        prior: multiplies the weights afterwards, without normalizing again; None for none.

    Raises:
        ShapeError: a sink that is not a tensor.
        ConfigError: a prior that is not a `Prior`.

    Source: the sink: Miller 2023, "Attention is off by one", and OpenAI 2025, arXiv 2508.10925, section 2.2; the
    prior: Luong et al. 2015, arXiv 1508.04025, equation 10.
    """

    sink: Tensor | None = holds("H", default=None)
    prior: Prior | None = None

    def __post_init__(self) -> None:
        if self.sink is not None:
            check_tensor("Softmax", "sink", self.sink)
        if self.prior is not None and not isinstance(self.prior, Prior):
            raise ConfigError(f"Softmax: prior={show(self.prior)} is not a Prior; expected one such as Gaussian(...)")

    def statistic(self, scores_BHLS: Tensor) -> Statistic:
        top = scores_BHLS.amax(-1, keepdim=True)
        sink = None if self.sink is None else per_head(self.sink, scores_BHLS.dtype)
        if isinstance(sink, Tensor):
            top = torch.maximum(top, sink)
        shift = finite(constant(top))
        total = torch.exp(scores_BHLS - shift).sum(-1, keepdim=True)
        if isinstance(sink, Tensor):
            total = total + torch.exp(sink - shift)
        return Statistic(shift, safe_log(total))

    def weights(self, scores_BHLS: Tensor, row: Statistic) -> Tensor:
        return torch.exp(scores_BHLS - row.shift - finite(row.level))

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

    Between softmax (alpha to 1) and sparsemax (alpha = 2); beyond 2 sparser still.

    Args:
        alpha: a number > 1, or a tensor (H,) or (), which may be learned. With a large alpha small weights react to
            the last digit of a score: two that are equal to 6 digits may weigh 0.2 and 0. The row's sum is 1 still.

    Raises:
        ConfigError: an alpha that is not above 1.

    Source: Peters et al. 2019, arXiv 1905.05702, section 3, equation 8; a learned alpha: Correia et al. 2019,
    arXiv 1909.00015, section 3.
    """

    alpha: float | Tensor = holds("H")

    def __post_init__(self) -> None:
        check_number("Entmax", "alpha", self.alpha, " above 1")
        least = smallest(self.alpha)
        if not least > 1:
            raise ConfigError(f"Entmax: alpha={least} must be above 1 (toward 1 it is Softmax(), 2 is Sparsemax())")

    def statistic(self, scores_BHLS: Tensor) -> Statistic:
        scores, alpha = constant(scores_BHLS), self._alpha(scores_BHLS)
        shift = finite(scores.amax(-1, keepdim=True))
        return Statistic(shift, entmax.threshold(scores - shift, alpha))

    def weights(self, scores_BHLS: Tensor, row: Statistic) -> Tensor:
        below = constant(scores_BHLS) - constant(row.shift)
        weights = entmax.weights(below, self._alpha(scores_BHLS), constant(row.level))
        return entmax.with_derivatives(weights, scores_BHLS, per_head(self.alpha, scores_BHLS.dtype))

    def _alpha(self, scores_BHLS: Tensor) -> float | Tensor:
        """Without derivatives."""
        alpha = per_head(self.alpha, scores_BHLS.dtype)
        return constant(alpha) if isinstance(alpha, Tensor) else alpha


@final
@value
class Sparsemax(Normalizer):
    """The nearest point of the simplex: [score - threshold]_+, the threshold such that the weights sum to 1.

    Source: Martins and Astudillo 2016, arXiv 1602.02068, section 2, equations 1 to 4.
    """

    def statistic(self, scores_BHLS: Tensor) -> Statistic:
        return Entmax(2.0).statistic(scores_BHLS)

    def weights(self, scores_BHLS: Tensor, row: Statistic) -> Tensor:
        return Entmax(2.0).weights(scores_BHLS, row)


@final
@value
class Sigmoid(Normalizer):
    """Each key by itself: 1 / (1 + exp(-(score + bias))). Rows do not sum to 1.

    Args:
        bias: a number, or a tensor (H,) or (). The source takes -log(S), so that a row starts with a sum near 1.

    Raises:
        ConfigError: a bias that is not finite.

    Source: Ramapuram et al. 2024, arXiv 2409.04431, section 2.
    """

    bias: float | Tensor = holds("H", default=0.0)

    def __post_init__(self) -> None:
        check_number("Sigmoid", "bias", self.bias)

    def statistic(self, scores_BHLS: Tensor) -> Statistic:
        none = scores_BHLS.new_zeros(*scores_BHLS.shape[:-1], 1)
        return Statistic(none, none)

    def weights(self, scores_BHLS: Tensor, row: Statistic) -> Tensor:
        return torch.sigmoid(scores_BHLS + per_head(self.bias, scores_BHLS.dtype))

    @property
    def no_entropy(self) -> str | None:
        return "Sigmoid weighs each key by itself: a row is not a distribution"


def sink_of(normalizer: Normalizer) -> Tensor | None:
    """The logits that join the sums of a row when all else is done; None for none."""
    return normalizer.sink if isinstance(normalizer, Softmax) else None


def finite(x: Tensor) -> Tensor:
    """0 in place of -inf: a row that sees nothing is shifted by nothing."""
    return torch.where(x == -torch.inf, 0.0, x)


def safe_log(x: Tensor) -> Tensor:
    """log(x), and at 0 -inf with derivative 0."""
    some = x > 0
    return torch.where(some, torch.log(torch.where(some, x, 1.0)), -torch.inf)
