"""Linear maps that are quick for a few rows, too, as decoding has them.

x W^T and its transpose W x^T are the same numbers, but not the same work: MKL cuts a product by the sizes of its
result, and for 12 to 128 rows of float32 the second takes it 0.5 to 1 times as long, with transposing it back.
"""

from typing import final

import torch
from torch import Tensor, nn
from torch.nn import functional

FEWEST, MOST = 12, 128  # rows for which the transpose was faster, with 256 to 2,048 inputs and 256 to 8,000 outputs


@final
class Linear(nn.Linear):
    """`nn.Linear`, computed by `linear`."""

    def forward(self, input: Tensor) -> Tensor:  # the name that nn.Linear has
        """The map.

        Args:
            input: (..., inputs).

        Returns:
            (..., outputs).
        """
        return linear(input, self.weight, self.bias)


def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """x W^T + b, as `torch.nn.functional.linear`, with another rounding where that is faster: see above.

    Args:
        x: (..., inputs).
        weight: (outputs, inputs).
        bias: (outputs,), or None.

    Returns:
        (..., outputs).
    """
    if torch.is_grad_enabled() or torch.compiler.is_compiling() or not _turns(x, weight):
        return functional.linear(x, weight, bias)
    columns = x.reshape(-1, x.shape[-1]).t()
    product = weight @ columns if bias is None else torch.addmm(bias[:, None], weight, columns)
    return product.t().contiguous().view(*x.shape[:-1], weight.shape[0])


def _turns(x: Tensor, weight: Tensor) -> bool:
    """Whether the transpose is the faster way, in inference on the CPU."""
    return (
        type(x) is Tensor
        and not torch.jit.is_tracing()  # which records sizes as tensors
        and FEWEST * weight.shape[1] <= x.numel() <= MOST * weight.shape[1]
        and x.is_cpu
        and x.dtype is weight.dtype is torch.float32
        and x.shape[-1] == weight.shape[1]
        and torch.backends.mkl.is_available()
        and not torch._C._is_any_autocast_enabled()
        and not torch._C._functorch.is_functorch_wrapped_tensor(x)
    )
