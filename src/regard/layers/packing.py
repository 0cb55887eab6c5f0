"""Sequences of unequal lengths, one behind the other: as one sequence, in which nothing is padding."""

from typing import final

import torch
from torch import Tensor, nn

from regard.attention.engine.tracing import is_traced
from regard.attention.patterns.sequence_pattern import Documents
from regard.layers.multi_head_attention import MultiHeadAttention
from regard.layers.step import is_usual


@final
class Packing:
    """Where sequences stand in the one that they are packed into.

    Differences of positions within a sequence stay as they are, positions themselves don't: what attention asks for
    must not depend on these.

    Args:
        lengths: (B,), how long each is, of S places.
        places: S.

    Source: Krell et al. 2021, arXiv 2107.02027, section 3.2.
    """

    def __init__(self, lengths: Tensor, places: int) -> None:
        self.taken = torch.arange(places, device=lengths.device) < lengths[:, None]  # (B, S): not padding
        self._at = self.taken.flatten().nonzero()[:, 0]  # (N,)
        self.pattern = Documents(self._at[None] // places)

    def pack(self, x: Tensor) -> Tensor:
        """The places of sequences (B, S, D) that are taken, as (1, N, D)."""
        return x.flatten(0, 1).index_select(0, self._at)[None]

    def unpack(self, x: Tensor) -> Tensor:
        """Sequences (B, S, D) again, from (1, N, D); padding is 0."""
        found = x.new_zeros(self.taken.numel(), x.shape[2]).index_copy_(0, self._at, x[0])
        return found.view(*self.taken.shape, x.shape[2])


def packing(module: nn.Module, lengths: Tensor, places: int) -> Packing | None:
    """How a module's sequences are packed, where that saves time and nobody sees it.

    Args:
        module: what is computed of them.
        lengths: (B,), how long each is, of S places.
        places: S.

    Returns:
        None on other devices than the CPU, with gradients, where somebody looks on, where nothing or all is padding, or
        where attention asks for a backend by name, which may take time for what a pattern hides.
    """
    if not lengths.is_cpu or torch.is_grad_enabled() or is_traced() or not is_usual(module):
        return None
    if any(isinstance(part, MultiHeadAttention) and part.backend != "auto" for part in module.modules()):
        return None
    return None if bool((lengths == places).all() or not lengths.any()) else Packing(lengths, places)
