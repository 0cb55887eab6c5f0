"""How a target is looked for, and what is found."""

from dataclasses import dataclass
from typing import Literal, NamedTuple, final

from regard.attention.check import check_integer, is_number, show
from regard.errors import ConfigError

STEEPEST = 10.0  # exponent of the length, beyond which float32 scores would all be 0


@final
@dataclass(frozen=True)
class Greedy:
    """The most probable token at each step. The score is the mean log-probability of the tokens, `eos` among them."""


@final
@dataclass(frozen=True)
class Sample:
    """A token drawn at each step, from the model's probabilities or the greater of them.

    Temperature comes first, then `top_k`, then `top_p` and `min_p` of what is left. With a seed the tokens depend on
    nothing but the seed, the model and the source: not on the batch, nor on the other sources. Of equal sources the
    first, second and so on differ from each other.

    The score is that of `Greedy`, by the model's own probabilities.

    Args:
        temperature: what log-probabilities are divided by, > 0; below 1 the probable gets more probable.
        top_k: draw from so many of the most probable tokens, >= 1; None for all.
        top_p: draw from the fewest tokens that have this probability together, 0 < top_p <= 1; None for all.
        min_p: draw from tokens that have at least this share of the greatest probability, 0 to 1; None for all.
        seed: of the drawing, 0 <= seed < 2^63; None for one from torch's default generator.

    Raises:
        ConfigError: a setting out of range.

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
                f"Sample: temperature={show(self.temperature)} must be above 0 and finite; Greedy() is its limit at 0"
            )
        if self.top_k is not None:
            check_integer("Sample", "top_k", self.top_k, 1, " tokens, or None for all")
        if self.top_p is not None and not (is_number(self.top_p) and 0 < self.top_p <= 1):
            raise ConfigError(f"Sample: top_p={show(self.top_p)} must be a probability, 0 < top_p <= 1, or None for 1")
        if self.min_p is not None and not (is_number(self.min_p) and 0 <= self.min_p <= 1):
            raise ConfigError(f"Sample: min_p={show(self.min_p)} must be a share, 0 <= min_p <= 1, or None for 0")
        if self.seed is not None:
            check_integer("Sample", "seed", self.seed, 0)


@final
@dataclass(frozen=True)
class Beam:
    """The hypotheses of the highest score, as far as a search finds them that goes on from the best few at each step.

    score = (sum of the tokens' log-probabilities) / length ^ length_penalty, where the length counts `eos`.

    At each step the 2 `size` best continuations of a sentence are looked at. Those among the first `size` that end
    with `eos` are finished, and the best `size` of the finished are kept; the best `size` of the others go on. A
    sentence is done when it has `size` finished hypotheses, and the best that goes on would score no more than the
    worst of them if it ended now. At the greatest length what goes on is closed as it stands.

    These are the rules of `generate(num_beams=size)` in Hugging Face transformers 5, with its `early_stopping`. Of a
    model with E end marks (1 + E) `size` continuations are looked at.

    Args:
        size: hypotheses that go on, >= 1.
        length_penalty: the exponent: 0 for the sum, which favors short targets, 1 for the mean; -10 to 10.
        n_best: hypotheses to return, best first, 1 <= n_best <= size.
        early_stopping: True: a sentence is done as soon as it has `size` finished hypotheses. "never": with a positive
            length_penalty, only when the best that goes on would score no more at the greatest length.

    Raises:
        ConfigError: a setting out of range.

    Source: Wu et al. 2016, arXiv 1609.08144, section 7, with a plain power of the length in the place of equation 14.
    """

    size: int = 4
    length_penalty: float = 1.0
    n_best: int = 1
    early_stopping: bool | Literal["never"] = False

    def __post_init__(self) -> None:
        check_integer("Beam", "size", self.size, 1, " hypotheses")
        check_integer("Beam", "n_best", self.n_best, 1, " hypotheses")
        if self.n_best > self.size:
            raise ConfigError(f"Beam: n_best={self.n_best} is more than size={self.size} can find; raise size")
        if not isinstance(self.early_stopping, bool) and self.early_stopping != "never":
            raise ConfigError(f'Beam: early_stopping={show(self.early_stopping)} must be False, True or "never"')
        if not (is_number(self.length_penalty) and abs(self.length_penalty) <= STEEPEST):
            raise ConfigError(
                f"Beam: length_penalty={show(self.length_penalty)} must be an exponent from {-STEEPEST:g} to "
                f"{STEEPEST:g}; 0 for none, 1 for the mean"
            )


Search = Greedy | Sample | Beam


class Hypothesis(NamedTuple):
    """A target that was found.

    Args:
        tokens: its ids, without bos and eos.
        score: its log-probability over its length, as the search weighs it.
        finished: whether it ended with eos, rather than at the greatest length.
    """

    tokens: list[int]
    score: float
    finished: bool
