"""Decoder-only Transformer layer: causal self-attention, then a feed-forward network."""

from collections.abc import Callable
from typing import final

from torch import Tensor, nn

from regard.attention.cache import KeyValueCache
from regard.attention.patterns.pattern import Pattern
from regard.layers.dropout import Dropout
from regard.layers.multi_head_attention import MultiHeadAttention


@final
class CausalLayer(nn.Module):
    """Pre-norm layer: h = x + attention(norm(x)), output = h + feed_forward(norm(h)), with dropout on both branches.

    Args:
        self_attention: attention with a causal pattern.
        feed_forward: module from (B, L, D) to (B, L, D).
        norm: factory of a norm over D features; called once per branch.
        dropout: probability that an entry of the output of a branch is dropped.

    Raises:
        ConfigError: a dropout that is not a probability.

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
        """Apply the layer to new positions.

        Args:
            x: (B, L, D).
            pattern: combined by & with the pattern of the attention.
            past: KV cache of the previous positions, to which those of x are appended; None if x starts at 0.

        Returns:
            (B, L, D).
        """
        x = x + self.dropout(self.self_attention(self.attention_norm(x), pattern=pattern, cache=past))
        output: Tensor = x + self.dropout(self.feed_forward(self.feed_forward_norm(x)))
        return output
