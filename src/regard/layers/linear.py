"""Linear maps by the native kernels: dot products for few rows, as in decoding, and int8-split products for many.

For few rows MKL, which PyTorch calls, is slow (docs/log/kernels.md); the dot-product kernel reads the weight once, in
place. For many rows, on processors with int8 tiles, both operands are split into int8 slices (Ozaki scheme) and
multiplied exactly; rows in which an outlier makes the slices too coarse are multiplied as floats. With both kernels a
row's result does not depend on the rows beside it.
"""

from functools import lru_cache
from typing import Any, final

import torch
from torch import Tensor, nn
from torch.nn import functional

from regard import kernels
from regard.attention.backends.native.call import relaxed
from regard.attention.engine.tracing import is_traced

# Kernel arguments of a linear map: outputs, features, address and stride of the weight, address of the bias, and
# addresses of codes, scales and sums: in int8 the weight's two are 0, in float32 the last three.
KernelWeights = tuple[int, int, int, int, int, int, int, int]
MAX_DOT_ROWS = 128  # the dot kernel was faster or nearly so, with 256 to 2,048 inputs and 256 to 8,000 outputs
MIN_SPLIT_ROWS = 256  # from here on, splitting the weight in each call pays


@final
class Linear(nn.Linear):
    """`nn.Linear`, computed by `linear`.

    `splits`: whether many rows may be multiplied by int8 splits; false for maps with so many outliers in inputs or
    weights that splits are slower.
    """

    splits: bool = True

    def forward(self, input: Tensor) -> Tensor:  # the name that nn.Linear has
        """The map.

        Args:
            input: (..., inputs).

        Returns:
            (..., outputs).
        """
        return linear(input, self.weight, self.bias, splits=self.splits)

    @property
    def kernel_weights(self) -> KernelWeights | None:
        """Kernel arguments of the map; None if the kernels cannot read its weights."""
        return kernel_weights(self.weight, self.bias)


def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None, *, splits: bool = True) -> Tensor:
    """x W^T + b, as `torch.nn.functional.linear`, with another rounding where that is faster: see above.

    Args:
        x: (..., inputs).
        weight: (outputs, inputs).
        bias: (outputs,), or None.
        splits: whether many rows may be multiplied by int8 splits.

    Returns:
        (..., outputs).
    """
    features = weight.shape[-1]
    if not is_ours(x) or not is_map(weight, bias) or features != x.shape[-1] or (kernel := fast()) is None:
        return functional.linear(x, weight, bias)
    if x.numel() <= MAX_DOT_ROWS * features:
        rows, output = rows_of(x), x.new_empty(*x.shape[:-1], len(weight))
        kernel.linear(
            len(rows), *weight.shape, rows.data_ptr(), rows.stride(0), weight.data_ptr(), weight.stride(0),
            0 if bias is None else bias.data_ptr(), output.data_ptr(), torch.get_num_threads(),
        )  # fmt: skip
        return output
    if splits and x.numel() >= MIN_SPLIT_ROWS * features and has_int8_split():
        return int8_split_linear(x, None, weight, bias)
    return functional.linear(x, weight, bias)


def has_int8_split() -> bool:
    """Whether the int8-split kernel runs on this processor: it needs int8 tiles."""
    kernel = fast()
    return kernel is not None and kernel.int8_split_bytes(1, 1) > 0


def int8_split(weight: Tensor) -> Tensor | None:
    """Int8 slices of a weight, for `int8_split_linear`.

    Args:
        weight: (outputs, inputs), float32, rows without gaps.

    Returns:
        The slices in the kernel's own layout; None if outliers or non-finite entries make them unusable for more than
        half of the outputs.
    """
    kernel = fast()
    slices = torch.empty(kernel.int8_split_bytes(*weight.shape), dtype=torch.uint8, device="cpu")
    threads = torch.get_num_threads()
    useful = kernel.make_int8_split(*weight.shape, weight.data_ptr(), weight.stride(0), slices.data_ptr(), threads)
    return slices if useful else None


def int8_split_linear(x: Tensor, slices: Tensor | None, weight: Tensor, bias: Tensor | None) -> Tensor:
    """x W^T + b by int8-split products: each 256 features of a row are rounded to 24 bits of their largest magnitude.

    Rows and outputs in which outliers make this coarser than float32 are multiplied as floats, unless
    `torch.set_float32_matmul_precision` asks for less than "highest".

    Args:
        x: (..., inputs).
        slices: of the weight, from `int8_split`; None splits it in this call.
        weight: (outputs, inputs).
        bias: (outputs,), or None.

    Returns:
        (..., outputs).
    """
    rows, output = rows_of(x), x.new_empty(*x.shape[:-1], len(weight))
    fast().int8_split_linear(
        len(rows), *weight.shape, rows.data_ptr(), rows.stride(0), 0 if slices is None else slices.data_ptr(),
        weight.data_ptr(), weight.stride(0), 0 if bias is None else bias.data_ptr(), output.data_ptr(),
        torch.get_num_threads(), relaxed(),
    )  # fmt: skip
    return output


def rows_of(x: Tensor) -> Tensor:
    """x (..., inputs) as a matrix whose rows have no gaps."""
    rows = x.reshape(-1, x.shape[-1])
    return rows if rows.stride(1) == 1 else rows.contiguous()


@lru_cache(maxsize=1)
def fast() -> Any:
    """The kernels; None if they are missing or only the baseline runs, whose speed was not measured."""
    return None if kernels.missing() is not None or kernels.isa() == "baseline" else kernels.module()


def is_few(x: Tensor, features: int) -> bool:
    """Whether the kernel for few rows can compute this input."""
    return x.numel() <= MAX_DOT_ROWS * features and is_ours(x)


def is_ours(x: Tensor) -> bool:
    """Whether `x` is a dense float32 tensor on the CPU, without gradients, tracing or autocast."""
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


def kernel_weights(weight: Tensor, bias: Tensor | None) -> KernelWeights | None:
    """Kernel arguments of a linear map in float32; None if the kernels cannot read its weights."""
    if not is_map(weight, bias):
        return None
    return *weight.shape, weight.data_ptr(), weight.stride(0), 0 if bias is None else bias.data_ptr(), 0, 0, 0


def is_map(weight: Tensor, bias: Tensor | None) -> bool:
    """Whether the kernel can read weight and bias: float32 on the CPU, with contiguous rows."""
    return (
        is_plain(weight)
        and weight.dim() == 2
        and weight.stride(1) == 1
        and (bias is None or (is_plain(bias) and bias.shape == weight.shape[:1] and bias.stride(0) == 1))
    )


def is_plain(x: Tensor) -> bool:
    """Whether `x` is a dense float32 tensor or parameter on the CPU."""
    return type(x) in (nn.Parameter, Tensor) and x.is_cpu and x.dtype is torch.float32 and x.layout is torch.strided
