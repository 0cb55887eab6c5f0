"""Gated convolutions with weight normalization."""

import math
from typing import final

import torch
from torch import Tensor, nn
from torch.nn import functional

from regard.layers.linear import linear

HALF = math.sqrt(0.5)  # scale of a sum of two terms that preserves the variance


@final
class WeightNormLinear(nn.Module):
    """Linear map with weight normalization: x W^T + b, where W = gain * direction / |direction| for each row.

    Args:
        inputs: number of input features.
        outputs: number of output features.
        variance: initial ratio of output variance to input variance.

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
        """Reset to normally distributed weights, with the row norms as gains, and bias 0."""
        nn.init.normal_(self.direction, std=math.sqrt(self.variance / self.direction.shape[1]))
        with torch.no_grad():
            self.gain.copy_(self.direction.norm(dim=1, keepdim=True))
        nn.init.zeros_(self.bias)

    def forward(self, x: Tensor) -> Tensor:
        """Map (..., inputs) to (..., outputs)."""
        scale = self.gain / torch.linalg.vector_norm(self.direction, dim=1, keepdim=True)
        return linear(x, self.direction * scale, self.bias)


@final
class GatedConvolution(nn.Module):
    """Convolution with a gated linear unit: (W x + b) sigmoid(V x + d) for each window x of positions.

    The vectors of a window are concatenated, so that the convolution is a linear map.

    Args:
        hidden_dim: D, number of input and output features.
        kernel: number of positions in a window.
        keep: keep probability of the dropout on the inputs, for the initialization.

    Source: Gehring et al. 2017, arXiv 1705.03122, section 3.2; initialization: section 3.5.
    """

    def __init__(self, hidden_dim: int, kernel: int, *, keep: float = 1.0) -> None:
        super().__init__()
        self.kernel = kernel
        # The gate reduces the variance to 1/4.
        self.both = WeightNormLinear(kernel * hidden_dim, 2 * hidden_dim, variance=4 * keep)

    def forward(self, x: Tensor) -> Tensor:
        """Convolve without padding.

        Args:
            x: (..., L + kernel - 1, D).

        Returns:
            (..., L, D).
        """
        length = x.shape[-2] - self.kernel + 1
        windows = torch.cat([x[..., i : i + length, :] for i in range(self.kernel)], -1)
        return functional.glu(self.both(windows), -1)
