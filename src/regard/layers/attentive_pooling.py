"""Attentive pooling: one vector for a whole sequence, as several weighted means of its states."""

from typing import final

import torch
from torch import Tensor, nn

from regard.attention.attend import attend
from regard.attention.check import check_integer
from regard.attention.patterns.pattern import Full
from regard.attention.patterns.sequence_pattern import KeyLengths
from regard.attention.score import Additive
from regard.attention.summary import Seen, Summary
from regard.layers.attention_module import AttentionModule
from regard.layers.linear import Linear


@final
class AttentivePooling(AttentionModule):
    """A matrix embedding of a sequence: `hops` weighted means of its states, each with weights of its own.

    With H the states: A = softmax(v tanh(W H^T)), M = A H, where v has a row for each hop. The rows of v start at 0, so
    that every hop is the plain mean at first.

    Args:
        input_dim: D, of the states.
        hops: r, means of the sequence.
        align_dim: d_a, the size that states are projected to.

    Raises:
        ConfigError: a size below 1.

    Source: Lin et al. 2017, arXiv 1703.03130, section 2.1, equations 6 and 7; W_s1 is W, W_s2 is v.

    >>> pooling = AttentivePooling(6, hops=2, align_dim=5)
    >>> pooling(torch.randn(3, 7, 6), torch.tensor([7, 4, 1])).shape
    torch.Size([3, 2, 6])
    """

    def __init__(self, input_dim: int, *, hops: int, align_dim: int) -> None:
        super().__init__()
        for name, size in (("input_dim", input_dim), ("hops", hops), ("align_dim", align_dim)):
            check_integer("AttentivePooling", name, size, 1)
        self.key_proj = Linear(input_dim, align_dim, bias=False)
        self.vector = nn.Parameter(torch.zeros(hops, align_dim))
        nn.init.xavier_uniform_(self.key_proj.weight)

    def forward(
        self, hidden: Tensor, lengths: Tensor | None = None, summary: Summary | None = None
    ) -> Tensor | tuple[Tensor, Seen]:
        """The means.

        Args:
            hidden: the states (B, S, D).
            lengths: (B,), states that are not padding; None for all.
            summary: what to say of the weights (B, hops, 1, S).

        Returns:
            (B, hops, D); with a summary, that and a `Seen`.
        """
        keys, (hops, size) = self.key_proj(hidden)[:, None], self.vector.shape
        query = keys.new_zeros(len(hidden), hops, 1, size)
        pattern = Full() if lengths is None else KeyLengths(lengths)
        values = hidden[:, None].to(keys.dtype)
        score = Additive(self.vector)
        if summary is None:
            return attend(query, keys, values, score=score, pattern=pattern)[:, :, 0]
        output, seen = attend(query, keys, values, score=score, pattern=pattern, summary=summary)
        return output[:, :, 0], seen
