"""Linear maps with fast kernels for few rows, as in decoding, and for many rows on processors with AMX tiles.

MKL, which PyTorch calls, is slow for few rows (docs/log/kernels.md). The kernel for few rows reads the weight once, in
place. For many rows, another makes digits of both sides, whose products tiles sum, and takes the rows in
which an outlier makes digits too coarse as floats. Both give a row the same numbers whatever rows stand beside it.
"""

from functools import lru_cache
from typing import Any, final

import torch
from torch import Tensor, nn
from torch.nn import functional

from regard import kernels
from regard.attention.backends.native.call import relaxed
from regard.attention.engine.tracing import is_traced

FEW = 128  # rows for which the kernel was faster or nearly as fast, with 256 to 2,048 inputs and 256 to 8,000 outputs
MANY = 256  # rows from which on it pays to make digits of the weight in each call


@final
class Linear(nn.Linear):
    """`nn.Linear`, computed by `linear`."""

    def forward(self, input: Tensor) -> Tensor:  # the name that nn.Linear has
        """Apply the linear map.

        Args:
            input: (..., inputs).

        Returns:
            (..., outputs).
        """
        return linear(input, self.weight, self.bias)


def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """Linear map x W^T + b, as `torch.nn.functional.linear` up to rounding.

    Args:
        x: (..., inputs).
        weight: (outputs, inputs).
        bias: (outputs,), or None.

    Returns:
        (..., outputs).
    """
    features = weight.shape[-1]
    if not is_ours(x) or not is_map(weight, bias) or features != x.shape[-1] or (kernel := fast()) is None:
        return functional.linear(x, weight, bias)
    if x.numel() <= FEW * features:
        rows, found = rows_of(x), x.new_empty(*x.shape[:-1], len(weight))
        kernel.linear(
            len(rows), *weight.shape, rows.data_ptr(), rows.stride(0), weight.data_ptr(), weight.stride(0),
            0 if bias is None else bias.data_ptr(), found.data_ptr(), torch.get_num_threads(),
        )  # fmt: skip
        return found
    if x.numel() >= MANY * features and has_digits():
        return by_digits(x, None, weight, bias)
    return functional.linear(x, weight, bias)


def has_digits() -> bool:
    """Whether products run by digits here: on processors with tiles of int8."""
    kernel = fast()
    return kernel is not None and kernel.digits_bytes(1, 1) > 0


def digits_of(weight: Tensor) -> Tensor | None:
    """The digits of a weight, for `by_digits`.

    Args:
        weight: (outputs, inputs), float32, rows without gaps.

    Returns:
        Bytes in the kernel's own order; None if outliers make them too coarse for half of the outputs, or these are not
        finite: `by_digits` would take those as floats.
    """
    kernel = fast()
    found = torch.empty(kernel.digits_bytes(*weight.shape), dtype=torch.uint8, device="cpu")
    threads = torch.get_num_threads()
    useful = kernel.make_digits(*weight.shape, weight.data_ptr(), weight.stride(0), found.data_ptr(), threads)
    return found if useful else None


def by_digits(x: Tensor, digits: Tensor | None, weight: Tensor, bias: Tensor | None) -> Tensor:
    """The map as a product of digits: each side rounded to 24 bits of their largest number, 256 features at a time.

    Rows and outputs in which outliers make that coarser than float32 are multiplied as floats, unless
    `torch.set_float32_matmul_precision` asks for less than "highest".

    Args:
        x: (..., inputs).
        digits: of the weight, from `digits_of`; None makes them for this call.
        weight: (outputs, inputs).
        bias: (outputs,), or None.

    Returns:
        (..., outputs).
    """
    rows, found = rows_of(x), x.new_empty(*x.shape[:-1], len(weight))
    fast().digit_linear(
        len(rows), *weight.shape, rows.data_ptr(), rows.stride(0), 0 if digits is None else digits.data_ptr(),
        weight.data_ptr(), weight.stride(0), 0 if bias is None else bias.data_ptr(), found.data_ptr(),
        torch.get_num_threads(), relaxed(),
    )  # fmt: skip
    return found


def rows_of(x: Tensor) -> Tensor:
    """x (..., inputs) as a matrix with contiguous rows."""
    rows = x.reshape(-1, x.shape[-1])
    return rows if rows.stride(1) == 1 else rows.contiguous()


@lru_cache(maxsize=1)
def fast() -> Any:
    """Kernel module; None if it is missing or built for the baseline instruction set only, which is not tuned."""
    return None if kernels.missing() is not None or kernels.isa() == "baseline" else kernels.module()


def is_few(x: Tensor, features: int) -> bool:
    """Whether the kernel for few rows applies."""
    return x.numel() <= FEW * features and is_ours(x)


def is_ours(x: Tensor) -> bool:
    """Whether x is a dense float32 tensor on the CPU, without gradients, tracing, transforms or autocast."""
    return (
        not torch.is_grad_enabled()
        and not is_traced()
        and type(x) is Tensor
        and x.dim() > 0
        and x.numel() > 0
        and x.is_cpu
        and x.dtype is torch.float32
        and x.layout is torch.strided
        and not torch._C._is_any_autocast_enabled()
    )


def is_map(weight: Tensor, bias: Tensor | None) -> bool:
    """Whether the kernel can read weight and bias: float32 on the CPU with contiguous rows."""
    return (
        is_plain(weight)
        and weight.dim() == 2
        and weight.stride(1) == 1
        and (bias is None or (is_plain(bias) and bias.shape == weight.shape[:1] and bias.stride(0) == 1))
    )


def is_plain(x: Tensor) -> bool:
    """Whether x is a dense float32 tensor or parameter on the CPU."""
    return type(x) in (nn.Parameter, Tensor) and x.is_cpu and x.dtype is torch.float32 and x.layout is torch.strided
