"""Token embeddings of an encoder-decoder, optionally shared and tied."""

from typing import final

import torch
from torch import Tensor, nn
from torch.nn import functional

from regard.layers.output_projection import OutputProjection


@final
class Embeddings(nn.Module):
    """Embeddings of source and target tokens, and weights of the output projection.

    Args:
        size: N, size of the vocabulary.
        embed_dim: D.
        shared: whether source and target share their embeddings.
        tied: whether the output projection uses the target embeddings.
        scale: factor of embedded tokens, not of the output projection. Embeddings are initialized with a standard
            deviation of 0.1, which suits logits and, unscaled, makes the inputs of gates too small.

    Source: Press and Wolf 2016, arXiv 1608.05859, section 3.
    """

    def __init__(self, size: int, embed_dim: int, *, shared: bool, tied: bool, scale: float = 1.0) -> None:
        super().__init__()
        self.scale = scale
        self.weight = nn.Parameter(torch.empty(size, embed_dim))
        self.target_weight = None if shared else nn.Parameter(torch.empty(size, embed_dim))
        self.output_weight = None if tied else nn.Parameter(torch.empty(size, embed_dim))
        self.output_bias = nn.Parameter(torch.empty(size))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Reset the parameters as in Gehring et al. 2017, arXiv 1705.03122, section 3.5."""
        for weight in (self.weight, self.target_weight, self.output_weight):
            if weight is not None:
                nn.init.normal_(weight, std=0.1)
        nn.init.zeros_(self.output_bias)

    def source(self, tokens: Tensor) -> Tensor:
        """Embed source tokens (...) as vectors (..., D)."""
        return self._scaled(functional.embedding(tokens, self.weight))

    def target(self, tokens: Tensor) -> Tensor:
        """Embed target tokens (...) as vectors (..., D)."""
        return self._scaled(functional.embedding(tokens, self._target))

    def _scaled(self, vectors: Tensor) -> Tensor:
        return vectors if self.scale == 1 else vectors * self.scale

    @property
    def projection(self) -> OutputProjection:
        """Output projection from hidden vectors (..., D) to logits (..., N)."""
        return OutputProjection(self._target if self.output_weight is None else self.output_weight, self.output_bias)

    @property
    def _target(self) -> Tensor:
        return self.weight if self.target_weight is None else self.target_weight
