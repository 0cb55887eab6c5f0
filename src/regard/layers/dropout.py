"""Fast dropout on the CPU, with 16 random bits per entry."""

from typing import final

import torch
from torch import Tensor, nn
from torch.nn import functional

from regard.attention.check import is_number, show
from regard.attention.engine.tracing import transforms
from regard.errors import ConfigError

LEVELS = 1 << 16  # resolution of the probability


@final
class Dropout(nn.Module):
    """Dropout: in training, sets each entry to 0 with probability p and scales the others by 1 / (1 - p).

    On the CPU, PyTorch's dropout draws one random number per entry and takes 2 to 3 times as long. This one draws 64
    random bits for four entries; p is rounded to a multiple of 2^-16, and the scale uses the rounded p.

    Args:
        p: probability of an entry to be dropped, 0 <= p < 1.

    Raises:
        ConfigError: a p out of range.

    Source: Srivastava et al. 2014, "Dropout: A Simple Way to Prevent Neural Networks from Overfitting", section 4.
    """

    def __init__(self, p: float) -> None:
        super().__init__()
        if not (is_number(p) and 0 <= p < 1):
            raise ConfigError(f"Dropout: p={show(p)} must be a probability, 0 <= p < 1")
        self.p = p

    def forward(self, x: Tensor) -> Tensor:
        """Apply dropout.

        Args:
            x: tensor of any shape.

        Returns:
            The same shape.
        """
        if not self.training or self.p == 0:
            return x
        if x.device.type != "cpu" or torch.compiler.is_compiling() or transforms():
            return functional.dropout(x, self.p, training=True)
        dropped = min(round(self.p * LEVELS), LEVELS - 1)
        words = torch.empty(-(-x.numel() // 4), dtype=torch.int64, device=x.device).random_(-(2**63), None)
        bits = words.view(torch.int16)[: x.numel()].view(x.shape)  # uniform on -2^15 ... 2^15 - 1
        keep = (bits >= dropped - LEVELS // 2).to(x.dtype).mul_(LEVELS / (LEVELS - dropped))
        return x * keep

    def extra_repr(self) -> str:
        return f"p={self.p}"
