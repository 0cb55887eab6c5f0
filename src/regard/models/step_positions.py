"""Position embeddings of decoding steps."""

from typing import final

import torch
from torch import Tensor, nn

STEPS_AT_ONCE = 64  # decoding steps whose position embeddings are computed together


@final
class StepPositions:
    """Position embeddings of decoding steps, computed for STEPS_AT_ONCE steps together.

    Args:
        positions: module that adds position embeddings to (1, L, D), from a first position on.
        size: D.
        max_length: number of positions; None if unlimited.
    """

    def __init__(self, positions: nn.Module, size: int, max_length: int | None) -> None:
        self._positions, self._size, self._max_length = positions, size, max_length
        self._first, self._embeddings = -1, torch.empty(0)

    def at(self, position: int, like: Tensor) -> Tensor:
        """The position embedding (D,) of a step.

        Args:
            position: of the step's token.
            like: tensor with the dtype and device of the embedding.

        Raises:
            ShapeError: a learned position that there is none of.
        """
        first = position - position % STEPS_AT_ONCE
        if first != self._first or position - first >= len(self._embeddings):
            left = STEPS_AT_ONCE if self._max_length is None else self._max_length - first
            count = max(position + 1 - first, min(STEPS_AT_ONCE, left))
            self._embeddings = self._positions(like.new_zeros(1, count, self._size), first)[0]
            self._first = first
        return self._embeddings[position - first]
