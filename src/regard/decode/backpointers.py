"""The tokens of many targets that grow by one token a step, and share their beginnings."""

from collections.abc import Sequence
from typing import final

import torch
from torch import Tensor

START = -1  # the link before the first token


@final
class Backpointers:
    """Chains of tokens: a hypothesis is known by its last link, and each link knows the one before.

    So a step writes one token a hypothesis, whatever goes on from whatever; whole targets are read at the end.
    """

    def __init__(self) -> None:
        self._tokens: list[Tensor] = []  # of a step each, flat
        self._before: list[Tensor] = []
        self._count = 0

    def add(self, tokens: Tensor, before: Tensor) -> Tensor:
        """One more token of each hypothesis, behind the link before it; the new backpointers, of the same shape."""
        self._tokens.append(tokens.flatten())
        self._before.append(before.flatten())
        first, self._count = self._count, self._count + tokens.numel()
        return torch.arange(first, self._count, device=tokens.device).view(tokens.shape)

    def read(self, lasts: Sequence[int]) -> list[list[int]]:
        """The tokens of the chains that end with these backpointers, each from its beginning."""
        tokens = torch.cat(self._tokens).tolist()
        before = torch.cat(self._before).tolist()
        found = []
        for last in lasts:
            chain = []
            while last != START:
                chain.append(tokens[last])
                last = before[last]
            found.append(chain[::-1])
        return found
