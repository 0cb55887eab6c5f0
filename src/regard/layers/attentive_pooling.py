"""Attentive pooling of a sequence into a fixed number of vectors."""

from typing import final

import torch
from torch import Tensor, nn

from regard.attention.attend import attend
from regard.attention.check import check_integer
from regard.attention.patterns.pattern import Full
from regard.attention.patterns.sequence_pattern import KeyLengths
from regard.attention.score import Additive
from regard.attention.summary import Summary, SummaryResult
from regard.layers.attention_module import AttentionModule
from regard.layers.linear import Linear


@final
class AttentivePooling(AttentionModule):
    """Structured self-attentive embedding of a sequence: `hops` weighted means of its hidden states.

    For hidden states H: A = softmax(v tanh(W H^T)), M = A H, where v has one row per hop. v is initialized to 0, so
    that every hop is initially the plain mean.

    Args:
        input_dim: D, size of the hidden states.
        hops: r, number of weighted means.
        align_dim: d_a, size of the projected states.

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
    ) -> Tensor | tuple[Tensor, SummaryResult]:
        """Pool the hidden states.

        Args:
            hidden: (B, S, D).
            lengths: (B,), number of states that are not padding; None for all.
            summary: which summaries of the weights (B, hops, 1, S) to return; None for none.

        Returns:
            (B, hops, D); with a summary, a tuple of that and a `SummaryResult`.
        """
        keys, (hops, size) = self.key_proj(hidden)[:, None], self.vector.shape
        query = keys.new_zeros(len(hidden), hops, 1, size)
        pattern = Full() if lengths is None else KeyLengths(lengths)
        values = hidden[:, None].to(keys.dtype)
        score = Additive(self.vector)
        if summary is None:
            return attend(query, keys, values, score=score, pattern=pattern)[:, :, 0]
        output, summary_result = attend(query, keys, values, score=score, pattern=pattern, summary=summary)
        return output[:, :, 0], summary_result
