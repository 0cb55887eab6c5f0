"""Linear maps with prepacked weights for inference on the CPU, used where they are faster.

In float32 where the processor has tiles: as the digits that the kernels multiply (`kernels/digit_linear.hpp`). Else by
oneDNN, which saves MKL's way of reading float32 weights, its own of laying out bfloat16 weights in each call, and the
bias, which PyTorch copies to every row of the output before it multiplies. Fusing an activation gains nothing
measurable, for a ReLU a few percent, so none is fused.
"""

import time
from collections.abc import Callable
from typing import Any, NamedTuple, final

import torch
from torch import Tensor, nn
from torch.autograd import forward_ad

from regard.attention.check import show
from regard.errors import ConfigError
from regard.layers.linear import Linear, by_digits, digits_of, has_digits, is_map, linear

LAYOUT_ROWS = 1024  # that oneDNN is asked for; for 1 to 4096 rows no other layout was faster
SURE = 32  # rows from which on digits were never slower, on a machine whose tiles run at changing rates
TURNS, MOST_TURNS, SECONDS = 7, 50, 0.05  # of each way, when they race: what short ones fill; the best turn counts
TIE = 1.1  # within 10%, prefer packed weights: timings on a busy machine are noisy
DTYPES = {torch.float32, torch.bfloat16}


class Shape(NamedTuple):
    """Key of a measured shape of linear map."""

    rows: int  # the next power of two
    inputs: int
    outputs: int
    bias: bool
    dtype: torch.dtype  # of the product
    autocast: bool  # casts the weights in each plain call
    threads: int


class Packed(NamedTuple):
    """Packed weight, with the tensor it was made from."""

    source: Tensor  # keeps the memory alive, so that no other weight can reuse its address
    version: int
    weight: Tensor  # as `digits_of` made it, or in oneDNN's layout

    def fits(self, weight: Tensor) -> bool:
        """Whether the weight is unchanged since it was packed."""
        return (
            self.version == weight._version
            and self.source.data_ptr() == weight.data_ptr()
            and self.source.shape == weight.shape
            and self.source.stride() == weight.stride()
        )


FASTER: dict[Shape, bool] = {}  # whether the packed weight was faster when this process first used the shape


@final
class FastLinear(nn.Linear):
    """`nn.Linear` converted by `accelerate`: the same object and parameters, with a faster `forward`.

    The plain computation is used where gradients are needed, while compiling or tracing, under `torch.func`, on other
    devices than the CPU, for other dtypes than float32 and bfloat16, and where it is faster.
    """

    _packs: dict[torch.dtype, Packed]
    _dtype: torch.dtype | None
    _plain: type[nn.Linear]  # original class

    @property
    def same(self) -> bool:
        """Whether products are computed in the dtype of the weight."""
        return self._dtype in (None, self.weight.dtype)

    def forward(self, input: Tensor) -> Tensor:  # the name that nn.Linear has
        """Apply the linear map.

        Args:
            input: (..., inputs).

        Returns:
            (..., outputs).
        """
        if torch.compiler.is_compiling() or (dtype := self._product_dtype(input)) is None:
            return linear(input, self.weight, self.bias)
        autocast = torch.is_autocast_enabled("cpu")
        if dtype != input.dtype and not autocast:  # a dtype requested from `accelerate`: always packed
            return self._multiply(input, self._packed(dtype), dtype).to(input.dtype)
        rows = input.numel() // self.in_features
        if rows >= SURE and dtype == torch.float32 and not autocast and has_digits():
            weight = self._packed(dtype)
            if weight.dtype == torch.uint8:
                return self._multiply(input, weight, dtype)
        shape = Shape(
            1 << (rows - 1).bit_length(), self.in_features, self.out_features, self.bias is not None, dtype,
            autocast, torch.get_num_threads(),
        )  # fmt: skip
        faster = FASTER.get(shape)
        if faster is None:
            weight = self._packed(dtype, keep=False)
            FASTER[shape] = faster = wins(
                lambda: self._multiply(input, weight, dtype),
                lambda: linear(input, self.weight, self.bias),
            )
        if not faster:
            return linear(input, self.weight, self.bias)
        return self._multiply(input, self._packed(dtype), dtype)

    def _product_dtype(self, x: Tensor) -> torch.dtype | None:
        """Dtype of a product with the packed weight; None if the plain computation is required."""
        weight, bias = self.weight, self.bias
        if type(x) not in (Tensor, nn.Parameter) or type(weight) is not nn.Parameter or torch.jit.is_tracing():
            return None
        if torch.is_grad_enabled() and (
            x.requires_grad or weight.requires_grad or (bias is not None and bias.requires_grad)
        ):
            self._packs.clear()  # an optimizer step may change the weight
            return None
        autocast = torch.is_autocast_enabled("cpu")
        dtype = torch.get_autocast_dtype("cpu") if autocast else self._dtype or x.dtype
        fits = {x.dtype, weight.dtype} <= DTYPES and (autocast or x.dtype == weight.dtype)
        if not (fits and runs_here(dtype)):
            return None
        shaped = x.dim() > 0 and x.shape[-1] == weight.shape[1] and x.numel() > 0 and weight.numel() > 0
        if not shaped or x.device.type != "cpu" or weight.device.type != "cpu" or x.layout != torch.strided:
            return None
        if weight.is_inference() or torch._C._functorch.is_functorch_wrapped_tensor(x):  # no version counter; functorch
            return None
        return dtype if forward_ad.unpack_dual(x).tangent is None else None

    def _packed(self, dtype: torch.dtype, *, keep: bool = True) -> Tensor:
        """Packed weight, packed again if the weight has changed."""
        found = self._packs.get(dtype)
        if found is None or not found.fits(self.weight):
            with torch.no_grad(), torch.autocast("cpu", enabled=False):
                plain = self.weight.detach()
                digits = dtype == plain.dtype == torch.float32 and is_map(plain, None) and has_digits()
                packed = digits_of(plain) if digits else None
                if packed is None:
                    packed = torch.ops.mkldnn._reorder_linear_weight(plain.to(dtype).contiguous(), LAYOUT_ROWS)
            found = Packed(plain, self.weight._version, packed)
            if keep:
                self._packs[dtype] = found
        return found.weight

    def _multiply(self, x: Tensor, weight: Tensor, dtype: torch.dtype) -> Tensor:
        bias = None if self.bias is None else self.bias.to(dtype).contiguous()
        if weight.dtype == torch.uint8:
            return by_digits(x.to(dtype), weight, self.weight, bias)
        product: Tensor = torch.ops.mkldnn._linear_pointwise(x.to(dtype), weight, bias, "none", [], "")
        return product

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> "FastLinear":
        self._packs.clear()
        super()._apply(fn, recurse)
        return self

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_packs": {}}  # not picklable, and rebuilt on demand


def accelerate_linear(module: nn.Module, dtype: torch.dtype | None = None) -> None:
    """Accelerate the linear maps of a module, in place.

    Args:
        module: any module, or an `nn.Linear` itself.
        dtype: dtype of the products, torch.bfloat16 or torch.float32; by default that of weights and inputs.

    Raises:
        ConfigError: not a module, or another dtype.
    """
    check_module("accelerate", module)
    if not (dtype is None or (isinstance(dtype, torch.dtype) and dtype in DTYPES)):
        raise ConfigError(f"accelerate: dtype={show(dtype)}; expected torch.bfloat16, torch.float32 or None")
    for part in module.modules():
        if type(part) in (nn.Linear, Linear) and not customized(part):
            part._plain, part.__class__ = type(part), FastLinear
        if type(part) is FastLinear:
            part._packs, part._dtype = {}, dtype


def restore_linear(module: nn.Module) -> None:
    """Undo `accelerate_linear`, in place.

    Raises:
        ConfigError: not a module.
    """
    check_module("restore", module)
    for part in module.modules():
        if type(part) is FastLinear:
            part.__class__ = part._plain
            del part._packs, part._dtype, part._plain


def check_module(owner: str, module: object) -> None:
    """Raise ConfigError unless `module` is an nn.Module."""
    if not isinstance(module, nn.Module):
        raise ConfigError(f"{owner}: got {show(module)}; expected a torch.nn.Module")


def customized(linear: nn.Linear) -> bool:
    """Whether the call of a linear map is customized, for example by the hook of old-style `weight_norm`."""
    hooks = (
        linear._forward_hooks, linear._forward_pre_hooks, linear._backward_hooks, linear._backward_pre_hooks,
    )  # fmt: skip
    return any(hooks) or "forward" in vars(linear) or not isinstance(linear._parameters.get("weight"), nn.Parameter)


def runs_here(dtype: torch.dtype) -> bool:
    """Whether oneDNN is enabled and supports the dtype on this machine."""
    if not (torch.backends.mkldnn.is_available() and torch.backends.mkldnn.enabled):
        return False
    if dtype == torch.bfloat16:
        return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())
    return dtype == torch.float32


def wins(this: Callable[[], Tensor], that: Callable[[], Tensor]) -> bool:
    """Whether the first function is faster or within TIE, by best times in alternation after a warm-up run."""
    best = [float("inf")] * 2
    began = time.perf_counter()
    for turn in range(MOST_TURNS):
        for i, run in enumerate((this, that)):
            start = time.perf_counter()
            run()
            if turn:
                best[i] = min(best[i], time.perf_counter() - start)
        if turn >= TURNS and time.perf_counter() - began > SECONDS:
            break
    return best[0] < TIE * best[1]
