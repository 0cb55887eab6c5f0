"""The state of models that keep tensors between steps: some of each sentence, some of each of its hypotheses."""

from typing import final

import torch
from torch import Tensor

from regard.models.seq2seq import Memory, State


@final
class Hypotheses(State):
    """Tensors (B, K, ...) of K hypotheses of each of B sentences, and the memory that a sentence's hypotheses share.

    Args:
        memory: of the sentences.
        tensors: (B, ...) of each sentence's first hypothesis.
    """

    def __init__(self, memory: Memory, *tensors: Tensor) -> None:
        self.memory = memory
        self.tensors = tuple(x[:, None] for x in tensors)
        self.position = 0  # of the next token

    def reorder(self, parents: Tensor) -> None:
        rows = torch.arange(parents.shape[0], device=parents.device)[:, None]
        self.tensors = tuple(x[rows, parents] for x in self.tensors)

    def keep(self, sentences: Tensor) -> None:
        self.memory = self.memory.keep(sentences)
        self.tensors = tuple(x[sentences] for x in self.tensors)

    def moved(self, *tensors: Tensor) -> None:
        """One step further, with other tensors."""
        self.tensors = tensors
        self.position += 1
