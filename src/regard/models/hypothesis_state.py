"""Decoding state of recurrent and convolutional models: tensors of each hypothesis, and the encoder's memory."""

from typing import final

import torch
from torch import Tensor

from regard.models.seq2seq import Memory, State


@final
class HypothesisState(State):
    """State tensors (B, K, ...) of K hypotheses of each of B sentences, and the memory that these share.

    Args:
        memory: of the sentences.
        tensors: (B, ...), the initial state of each sentence.
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

    def advance(self, *tensors: Tensor) -> None:
        """Replace the tensors by those after the next token."""
        self.tensors = tensors
        self.position += 1
