"""Gated convolutions over a sentence, with normalized weights."""

import math
from typing import final

import torch
from torch import Tensor, nn
from torch.nn import functional

from regard.layers.linear import linear

HALF = math.sqrt(0.5)  # times the sum of two terms: the sum then varies as much as each of them


@final
class WeightNormLinear(nn.Module):
    """x W + b, where each row of W has a direction and a length of its own: W = gain direction / |direction|.

    Args:
        inputs: the size of x.
        outputs: the size of the result.
        variance: that training starts from, of the result over that of the inputs.

    Source: Salimans and Kingma 2016, arXiv 1602.07868, section 2; as used by Gehring et al. 2017, arXiv 1705.03122,
    section 3.5.
    """

    def __init__(self, inputs: int, outputs: int, *, variance: float = 1.0) -> None:
        super().__init__()
        self.variance = variance
        self.direction = nn.Parameter(torch.empty(outputs, inputs))
        self.gain = nn.Parameter(torch.empty(outputs, 1))
        self.bias = nn.Parameter(torch.empty(outputs))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Start again from normal weights whose length is their gain, bias 0."""
        nn.init.normal_(self.direction, std=math.sqrt(self.variance / self.direction.shape[1]))
        with torch.no_grad():
            self.gain.copy_(self.direction.norm(dim=1, keepdim=True))
        nn.init.zeros_(self.bias)

    def forward(self, x: Tensor) -> Tensor:
        """(..., inputs) to (..., outputs)."""
        scale = self.gain / torch.linalg.vector_norm(self.direction, dim=1, keepdim=True)
        return linear(x, self.direction * scale, self.bias)


@final
class GatedConvolution(nn.Module):
    """A convolution whose result is gated by another: (W x + b) sigmoid(V x + d) at each window x of positions.

    The window's vectors are laid side by side, so that a convolution is a linear map, one position at a time or all.

    Args:
        hidden_dim: D, of inputs and outputs.
        kernel: positions in a window.
        keep: the share of the inputs that dropout before it leaves.

    Source: Gehring et al. 2017, arXiv 1705.03122, section 3.2; what it starts from: section 3.5.
    """

    def __init__(self, hidden_dim: int, kernel: int, *, keep: float = 1.0) -> None:
        super().__init__()
        self.kernel = kernel
        self.both = WeightNormLinear(kernel * hidden_dim, 2 * hidden_dim, variance=4 * keep)  # the gate takes 3/4

    def forward(self, x: Tensor) -> Tensor:
        """The windows' results.

        Args:
            x: (..., L + kernel - 1, D).

        Returns:
            (..., L, D).
        """
        length = x.shape[-2] - self.kernel + 1
        windows = torch.cat([x[..., i : i + length, :] for i in range(self.kernel)], -1)
        return functional.glu(self.both(windows), -1)
