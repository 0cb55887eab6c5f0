"""Linear maps that are quick for a few rows, too, as decoding has them.

MKL, which PyTorch calls, is slow where there are a few rows; docs/log.md has figures. The kernel reads the weight once,
where it lies, and gives a row the same numbers whatever rows stand beside it.
"""

from functools import lru_cache
from typing import Any, final

import torch
from torch import Tensor, nn
from torch.nn import functional

from regard import kernels
from regard.attention.watched import watched

MOST = 128  # rows for which the kernel was faster or nearly as fast, with 256 to 2,048 inputs and 256 to 8,000 outputs


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
    if not is_few(x, weight.shape[-1]) or not is_map(weight, bias) or weight.shape[-1] != x.shape[-1]:
        return functional.linear(x, weight, bias)
    kernel = fast()
    if kernel is None:
        return functional.linear(x, weight, bias)
    outputs, inputs = weight.shape
    rows = x.reshape(-1, inputs)
    if rows.stride(1) != 1:
        rows = rows.contiguous()
    found = x.new_empty(*x.shape[:-1], outputs)
    kernel.linear(
        len(rows), outputs, inputs, rows.data_ptr(), rows.stride(0), weight.data_ptr(), weight.stride(0),
        0 if bias is None else bias.data_ptr(), found.data_ptr(), torch.get_num_threads(),
    )  # fmt: skip
    return found


@lru_cache(maxsize=1)
def fast() -> Any:
    """The module of kernels; None where there is none, or only the plainest, which nobody has raced."""
    return None if kernels.missing() is not None or kernels.isa() == "baseline" else kernels.module()


def is_few(x: Tensor, features: int) -> bool:
    """Whether these are a few rows of float32 on the CPU, and nobody looks on or changes them."""
    return (
        not torch.is_grad_enabled()
        and not watched()
        and type(x) is Tensor
        and x.dim() > 0
        and 0 < x.numel() <= MOST * features
        and x.is_cpu
        and x.dtype is torch.float32
        and x.layout is torch.strided
        and not torch._C._is_any_autocast_enabled()
    )


def is_map(weight: Tensor, bias: Tensor | None) -> bool:
    """Whether the kernel can read these: float32 that lies in the CPU's memory, rows without gaps."""
    return (
        is_plain(weight)
        and weight.dim() == 2
        and weight.stride(1) == 1
        and (bias is None or (is_plain(bias) and bias.shape == weight.shape[:1] and bias.stride(0) == 1))
    )


def is_plain(x: Tensor) -> bool:
    """Whether it is a tensor or parameter of float32 that lies in the CPU's memory."""
    return type(x) in (nn.Parameter, Tensor) and x.is_cpu and x.dtype is torch.float32 and x.layout is torch.strided
