"""Specification of an attention: the five values together."""

from typing import Any, final

from regard.attention.bias import Bias
from regard.attention.normalizer import Normalizer, Softmax
from regard.attention.patterns.pattern import Full, Pattern
from regard.attention.score import Dot, Score
from regard.attention.value import Value, value


@final
@value
class AttentionSpec(Value):
    """Score, normalizer, pattern, bias and dropout of an attention: all of it but its inputs.

    `attend(query, key, value, **spec.arguments())` computes it.

    Args:
        score: score function of query and key.
        normalizer: function from a row of scores to a row of weights.
        pattern: which keys a query may attend to.
        bias: term added to the scores; None for none.
        dropout: probability that a weight is dropped, 0 <= dropout < 1.

    >>> from regard import Causal, Entmax
    >>> AttentionSpec(normalizer=Entmax(1.5), pattern=Causal())
    AttentionSpec(normalizer=Entmax(alpha=1.5), pattern=Causal())
    """

    score: Score = Dot()
    normalizer: Normalizer = Softmax()
    pattern: Pattern = Full()
    bias: Bias | None = None
    dropout: float = 0.0

    def arguments(self) -> dict[str, Any]:
        """The five values as keyword arguments of `attend`.

        Returns:
            A dictionary by name.
        """
        return {
            "score": self.score,
            "normalizer": self.normalizer,
            "pattern": self.pattern,
            "bias": self.bias,
            "dropout": self.dropout,
        }


PLAIN = AttentionSpec()
