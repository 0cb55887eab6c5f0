"""Backpointers: the tokens of growing hypotheses, each with the index of the token before it."""

from collections.abc import Sequence
from typing import final

import torch
from torch import Tensor

START = -1  # the backpointer of a first token


@final
class Backpointers:
    """The tokens of all hypotheses of a search, as linked lists that share their beginnings.

    A step stores one token and one backpointer for each hypothesis, whatever its parent; whole sequences are read at
    the end.
    """

    def __init__(self) -> None:
        self._tokens: list[Tensor] = []  # of each step, flat
        self._previous: list[Tensor] = []  # the index of the token before each
        self._count = 0

    def add(self, tokens: Tensor, previous: Tensor) -> Tensor:
        """Append a token to each hypothesis.

        Args:
            tokens: token ids, of any shape.
            previous: the index of the token before each, of that shape; START for a first token.

        Returns:
            The indices of the new tokens, of that shape.
        """
        self._tokens.append(tokens.flatten())
        self._previous.append(previous.flatten())
        first, self._count = self._count, self._count + tokens.numel()
        return torch.arange(first, self._count, device=tokens.device).view(tokens.shape)

    def read(self, last: Sequence[int]) -> list[list[int]]:
        """The token ids of the sequences that end with the tokens at these indices, first token first."""
        tokens = torch.cat(self._tokens).tolist()
        previous = torch.cat(self._previous).tolist()
        sequences = []
        for index in last:
            sequence = []
            while index != START:
                sequence.append(tokens[index])
                index = previous[index]
            sequences.append(sequence[::-1])
        return sequences
