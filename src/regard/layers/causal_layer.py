"""The layer of models that go on from a text: self-attention to what stands before, then a feed-forward network."""

from collections.abc import Callable
from typing import final

from torch import Tensor, nn

from regard.attention.cache import KeyValueCache
from regard.attention.patterns.pattern import Pattern
from regard.layers.dropout import Dropout
from regard.layers.multi_head_attention import MultiHeadAttention


@final
class CausalLayer(nn.Module):
    """x + attention(norm(x)), and of that x + feed_forward(norm(x)), each part's output with dropout.

    Args:
        self_attention: with a pattern that shows a query nothing after its own position.
        feed_forward: gives (B, L, D) for (B, L, D).
        norm: makes a norm of D features; called once for each part.
        dropout: the probability that an entry of a part's output is dropped.

    Raises:
        ConfigError: a dropout that is no probability.

    Source: Radford et al. 2019, "Language Models are Unsupervised Multitask Learners", section 2.3.
    """

    def __init__(
        self,
        self_attention: MultiHeadAttention,
        feed_forward: nn.Module,
        *,
        norm: Callable[[], nn.Module],
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        self.attention_norm = norm()
        self.self_attention = self_attention
        self.feed_forward_norm = norm()
        self.feed_forward = feed_forward
        self.dropout = Dropout(dropout)

    def forward(self, x: Tensor, *, pattern: Pattern | None = None, past: KeyValueCache | None = None) -> Tensor:
        """The layer over new positions.

        Args:
            x: (B, L, D).
            pattern: joins that of the attention.
            past: keys and values of the positions before; those of x are appended. None where x starts at 0.

        Returns:
            (B, L, D).
        """
        x = x + self.dropout(self.self_attention(self.attention_norm(x), pattern=pattern, cache=past))
        output: Tensor = x + self.dropout(self.feed_forward(self.feed_forward_norm(x)))
        return output
