"""Search settings of decoding (`Greedy`, `Sample`, `Beam`), and its result (`Hypothesis`)."""

from dataclasses import dataclass
from typing import Literal, NamedTuple, final

from regard.attention.check import check_integer, is_number, show
from regard.errors import ConfigError

MAX_LENGTH_PENALTY = 10.0  # with larger exponents, scores would underflow in float32


@final
@dataclass(frozen=True)
class Greedy:
    """Greedy search: the most probable token at each step.

    The score of a hypothesis is the mean log-probability of its tokens, `eos` included.
    """


@final
@dataclass(frozen=True)
class Sample:
    """Sampling: a token drawn at random at each step, with temperature, top-k, top-p and min-p.

    Temperature is applied first, then `top_k`, then `top_p` and `min_p` to the remaining tokens. With a seed, the
    tokens depend on the seed, the model and the source alone, not on the batch or on other sources; repetitions of one
    source get different tokens.

    The score is that of `Greedy`, from the model's probabilities without temperature.

    Args:
        temperature: divisor of the logits, > 0: below 1 the distribution is sharper, above 1 flatter.
        top_k: sample from this number of most probable tokens, >= 1; None for all.
        top_p: sample from the smallest set of most probable tokens whose probabilities sum to this, 0 < top_p <= 1;
            None for all.
        min_p: sample from tokens whose probability is at least this fraction of the largest one, 0 to 1; None for all.
        seed: of the random numbers, 0 <= seed < 2^63; None to draw one from torch's default generator.

    Raises:
        ConfigError: a value that is out of range.

    Source: top-k: Fan et al. 2018, arXiv 1805.04833, section 5.1; top-p: Holtzman et al. 2019, arXiv 1904.09751,
    section 3.1; min-p: Nguyen et al. 2024, arXiv 2407.01082, section 3.
    """

    temperature: float = 1.0
    top_k: int | None = None
    top_p: float | None = None
    min_p: float | None = None
    seed: int | None = None

    def __post_init__(self) -> None:
        if not is_number(self.temperature) or not 0 < self.temperature < float("inf"):
            raise ConfigError(
                f"Sample: temperature={show(self.temperature)} must be above 0 and finite; use Greedy() for 0"
            )
        if self.top_k is not None:
            check_integer("Sample", "top_k", self.top_k, 1, " tokens, or None for all")
        if self.top_p is not None and not (is_number(self.top_p) and 0 < self.top_p <= 1):
            raise ConfigError(
                f"Sample: top_p={show(self.top_p)} must be a probability, 0 < top_p <= 1, or None for all"
            )
        if self.min_p is not None and not (is_number(self.min_p) and 0 <= self.min_p <= 1):
            raise ConfigError(f"Sample: min_p={show(self.min_p)} must be a fraction, 0 <= min_p <= 1, or None for all")
        if self.seed is not None:
            check_integer("Sample", "seed", self.seed, 0)


@final
@dataclass(frozen=True)
class Beam:
    """Beam search: the `size` best hypotheses of a sentence are extended at each step.

    score = (sum of the tokens' log-probabilities) / length ^ length_penalty, where the length counts `eos`.

    At each step the 2 `size` best continuations of a sentence are considered. Those among the first `size` that end
    with `eos` are finished, and the best `size` finished hypotheses are kept; the best `size` of the others are
    extended. A sentence is done when it has `size` finished hypotheses and the best unfinished one, if it ended now,
    would score no more than the worst of them. At the maximum length unfinished hypotheses are returned as they are.

    These are the rules of `generate(num_beams=size)` in Hugging Face transformers 5, with its `early_stopping`. For a
    model with E end tokens (1 + E) `size` continuations are considered.

    Args:
        size: number of beams, >= 1.
        length_penalty: exponent of the length, -10 to 10: 0 for the sum, which favors short targets, 1 for the mean.
        n_best: hypotheses to return, best first, 1 <= n_best <= size.
        early_stopping: if True, a sentence is done as soon as it has `size` finished hypotheses. If "never" and
            length_penalty is positive, only when the best unfinished hypothesis could not score more even at the
            maximum length.

    Raises:
        ConfigError: a value that is out of range.

    Source: Wu et al. 2016, arXiv 1609.08144, section 7, with a plain power of the length instead of equation 14.
    """

    size: int = 4
    length_penalty: float = 1.0
    n_best: int = 1
    early_stopping: bool | Literal["never"] = False

    def __post_init__(self) -> None:
        check_integer("Beam", "size", self.size, 1, " hypotheses")
        check_integer("Beam", "n_best", self.n_best, 1, " hypotheses")
        if self.n_best > self.size:
            raise ConfigError(f"Beam: n_best={self.n_best} must be at most size={self.size}; raise size")
        if not isinstance(self.early_stopping, bool) and self.early_stopping != "never":
            raise ConfigError(f'Beam: early_stopping={show(self.early_stopping)} must be False, True or "never"')
        if not (is_number(self.length_penalty) and abs(self.length_penalty) <= MAX_LENGTH_PENALTY):
            raise ConfigError(
                f"Beam: length_penalty={show(self.length_penalty)} must be an exponent from {-MAX_LENGTH_PENALTY:g} to "
                f"{MAX_LENGTH_PENALTY:g}; 0 for the sum, 1 for the mean"
            )


Search = Greedy | Sample | Beam


class Hypothesis(NamedTuple):
    """A decoded target.

    Args:
        tokens: token ids, without bos and eos.
        score: log-probability, normalized by the length as the search defines it.
        finished: whether it ended with eos, rather than at the maximum length.
    """

    tokens: list[int]
    score: float
    finished: bool
