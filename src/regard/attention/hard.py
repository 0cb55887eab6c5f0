"""Hard attention: a normalizer that chooses one key for each query, and its gradients.

In evaluation the choice is the first largest score. In training it is sampled from softmax(score / T) with the Gumbel
max trick: the largest of score / T + g, with g = -log(-log(u)). The numbers u are counter-based, from the second word
of the Philox output whose first word is dropout's, so every backend draws the same key.
"""

from dataclasses import replace
from typing import final

import torch
from torch import Tensor

from regard.attention.check import check_number, check_tensor, show, smallest
from regard.attention.dropout import random_words
from regard.attention.engine.tracing import constant
from regard.attention.normalizer import Normalizer, RowStats, Softmax, finite
from regard.attention.value import Value, per_head, tensor_field, value
from regard.errors import ConfigError, nearest


class GradientEstimator(Value):
    """Base class of the estimators of the gradient through a sampled choice."""


@final
@value
class StraightThrough(GradientEstimator):
    """One sampled key; the gradient is that of softmax(score / T).

    Source: Bengio et al. 2013, arXiv 1308.3432, section 4.
    """


@final
@value
class Reinforce(GradientEstimator):
    """One sampled key, without a gradient through the choice: the loss uses `Summary(log_prob=True)`.

    Source: Williams 1992, "Simple statistical gradient-following algorithms for connectionist reinforcement learning",
    section 4; for attention: Xu et al. 2015, arXiv 1502.03044, section 4.1.
    """


@final
@value
class Gumbel(GradientEstimator):
    """A relaxed sample, softmax((score + g) / T), whose weights are dense and differentiable.

    Source: Jang et al. 2016, arXiv 1611.01144, section 2.
    """


SAMPLES = {"straight-through": StraightThrough, "reinforce": Reinforce, "gumbel": Gumbel}


@final
@value
class Hard(Normalizer):
    """One key for each query, with weight 1; the weights of all other keys are 0.

    Args:
        sample: how to sample the key in training: `StraightThrough()`, `Reinforce()` or `Gumbel()`, or their name, such
            as "straight-through"; None for the first key with the largest score. Layers replace it by None in
            evaluation. The draws depend on the `seed` of `attend`.
        temperature: T > 0, a number, or a tensor (H,) or (). A lower one samples the largest scores more often.
        noise: g, (B, H, L, S) or smaller, instead of drawing it; None to draw it.

    Raises:
        ConfigError: an unknown sample, a temperature that is not above 0, or noise without a sample.
        ShapeError: noise that is not a tensor.

    Source: Xu et al. 2015, arXiv 1502.03044, section 4.1.
    """

    sample: GradientEstimator | None = None
    temperature: float | Tensor = tensor_field("H", default=1.0)
    noise: Tensor | None = tensor_field("BHLS", default=None)

    def __post_init__(self) -> None:
        if isinstance(self.sample, str):
            if self.sample not in SAMPLES:
                raise ConfigError(f"Hard: unknown sample {self.sample!r}; {nearest(self.sample, SAMPLES)}")
            object.__setattr__(self, "sample", SAMPLES[self.sample]())
        if self.sample is not None and not isinstance(self.sample, GradientEstimator):
            known = ", ".join(kind.__name__ for kind in SAMPLES.values())
            raise ConfigError(
                f"Hard: sample={show(self.sample)} is not a GradientEstimator; expected one of {known}, or None"
            )
        check_number("Hard", "temperature", self.temperature, " above 0")
        if not smallest(self.temperature) > 0:
            raise ConfigError(f"Hard: temperature={smallest(self.temperature)} must be above 0")
        if self.noise is not None:
            check_tensor("Hard", "noise", self.noise)
            if self.sample is None:
                raise ConfigError(
                    "Hard: noise is given without a sample; give sample=StraightThrough(), or leave it out"
                )

    @property
    def draws(self) -> bool:
        return self.sample is not None and self.noise is None

    @property
    def dense(self) -> bool:
        """Whether the weights, or their gradients, are not those of one key."""
        return isinstance(self.sample, StraightThrough | Gumbel)

    def drawn(self, words: Tensor, dtype: torch.dtype) -> "Hard":
        return replace(self, noise=gumbel_noise(words, dtype)) if self.draws else self

    def in_evaluation(self) -> "Hard":
        return self if self.sample is None else replace(self, sample=None, noise=None)

    def choose(self, scores_BHLS: Tensor) -> tuple[Tensor, Tensor]:
        """Index of the chosen key and whether there is one, (B, H, L, 1) each."""
        perturbed = constant(scores_BHLS)
        if self.noise is not None:
            perturbed = (perturbed if isinstance(self.sample, Gumbel) else self._scaled(perturbed)) + self.noise
        largest, index = perturbed.max(-1, keepdim=True)
        return index, largest > -torch.inf

    def row_stats(self, scores_BHLS: Tensor) -> RowStats:
        zero = scores_BHLS.new_zeros(*scores_BHLS.shape[:-1], 1)
        return RowStats(zero, zero)

    def weights(self, scores_BHLS: Tensor, row: RowStats) -> Tensor:
        if isinstance(self.sample, Gumbel):
            noise = 0.0 if self.noise is None else self.noise.to(scores_BHLS.dtype)
            return _softmax(self._scaled(scores_BHLS + noise))
        index, exists = self.choose(scores_BHLS)
        keys = torch.arange(scores_BHLS.shape[-1], device=scores_BHLS.device)
        weights = ((keys == index) & exists).to(scores_BHLS.dtype)
        if isinstance(self.sample, StraightThrough):
            soft = _softmax(self._scaled(scores_BHLS))
            weights = weights + (soft - constant(soft))
        return weights

    def log_prob(self, scores_BHLS: Tensor) -> Tensor:
        index, exists = self.choose(scores_BHLS)
        scaled = self._scaled(scores_BHLS)
        row = Softmax().row_stats(scaled)
        chosen = torch.where(exists, scaled.gather(-1, index), 0.0)
        return torch.where(exists, chosen - row.max - finite(row.offset), 0.0)[..., 0]

    @property
    def no_entropy(self) -> str | None:
        return "its weights are a choice; ask for Summary(log_prob=True), or for the entropy of Softmax()"

    @property
    def no_log_prob(self) -> str | None:
        return "a relaxed sample chooses no key" if isinstance(self.sample, Gumbel) else None

    def _scaled(self, scores: Tensor) -> Tensor:
        """score / T; a hidden score stays -inf and passes no gradient to T."""
        temperature = per_head(self.temperature, scores.dtype)
        if isinstance(temperature, float | int):
            return scores if temperature == 1 else scores / temperature
        hidden = scores == -torch.inf
        return torch.where(hidden, -torch.inf, torch.where(hidden, 0.0, scores) / temperature)


def gumbel_noise(words: Tensor, dtype: torch.dtype) -> Tensor:
    """Standard Gumbel noise -log(-log(u)) of 32-bit words, u = (word + 1/2) / 2^32."""
    uniform = (words.to(torch.float64) + 0.5) / 2**32
    return -torch.log(-torch.log(uniform)).to(dtype)


def noise_words(seed: Tensor, batch: int, heads: int, rows: slice, columns: slice) -> Tensor:
    """Random 32-bit words (B, H, rows, columns) of the weights' noise, independent of those of dropout."""
    return random_words(seed, batch, heads, rows, columns)[1]


def _softmax(scores: Tensor) -> Tensor:
    """Softmax of each row; 0 in rows whose scores are all -inf."""
    softmax = Softmax()
    return softmax.weights(scores, softmax.row_stats(scores))
