"""Packing of padded sequences into one sequence without padding."""

from typing import final

import torch
from torch import Tensor, nn

from regard.attention.engine.tracing import is_traced
from regard.attention.patterns.sequence_pattern import Documents
from regard.layers.multi_head_attention import MultiHeadAttention
from regard.layers.quantized_linear import is_quantized
from regard.layers.step import is_usual


@final
class Packing:
    """Layout of packed sequences, with the pattern that separates them.

    Packing preserves relative positions within a sequence but not absolute ones, so scores and biases must not depend
    on absolute positions.

    Args:
        lengths: (B,), number of tokens of each sequence.
        places: S, the padded length.

    Source: Krell et al. 2021, arXiv 2107.02027, section 3.2.
    """

    def __init__(self, lengths: Tensor, places: int) -> None:
        self.taken = torch.arange(places, device=lengths.device) < lengths[:, None]  # (B, S): not padding
        self._at = self.taken.flatten().nonzero()[:, 0]  # (N,)
        self.pattern = Documents(self._at[None] // places)

    def pack(self, x: Tensor) -> Tensor:
        """Pack the tokens of padded sequences (B, S, D) as (1, N, D)."""
        return x.flatten(0, 1).index_select(0, self._at)[None]

    def unpack(self, x: Tensor) -> Tensor:
        """Unpack (1, N, D) to padded sequences (B, S, D); padding is 0."""
        unpacked = x.new_zeros(self.taken.numel(), x.shape[2]).index_copy_(0, self._at, x[0])
        return unpacked.view(*self.taken.shape, x.shape[2])


def packing(module: nn.Module, lengths: Tensor, places: int) -> Packing | None:
    """Packing of the inputs of a module, if it saves time and has no visible effect.

    Args:
        module: the module that processes the sequences.
        lengths: (B,), number of tokens of each sequence.
        places: S, the padded length.

    Returns:
        The packing, or None: on other devices than the CPU, with gradients, with hooks or tracing, if nothing or
        everything is padding, or if an attention names its backend, which may compute hidden pairs too. Nor with int8
        weights: packing changes the rounding of attention, and a change of the last bit can change a code.
    """
    if not lengths.is_cpu or torch.is_grad_enabled() or is_traced():
        return None
    if bool((lengths == places).all() or not lengths.any()) or not is_usual(module):
        return None
    for part in module.modules():
        if is_quantized(part) or (isinstance(part, MultiHeadAttention) and part.backend != "auto"):
            return None
    return Packing(lengths, places)
