"""Linear maps on weights that are laid out once, at inference on the CPU, where that is faster.

In float32, on processors with int8 tiles: as int8 slices, multiplied by `kernels/linear/int8_split_linear.hpp`. Else by
oneDNN, which saves MKL's packing of float32 weights, oneDNN's own packing of bfloat16 weights in each call, and the
copy of the bias to every row of the output, which PyTorch makes before it multiplies. Activations are not fused: that
saves nothing measurable, for ReLU a few percent.
"""

import time
from collections.abc import Callable
from typing import Any, NamedTuple, TypeVar, final

import torch
from torch import Tensor, nn
from torch.autograd import forward_ad

from regard.attention.check import show
from regard.errors import ConfigError
from regard.layers.linear import (
    KernelWeights,
    Linear,
    has_int8_split,
    int8_split,
    int8_split_linear,
    is_map,
    kernel_weights,
    linear,
)

LAYOUT_ROWS = 1024  # that oneDNN is asked for; for 1 to 4096 rows no other layout was faster
SURE = 32  # rows from which on int8 splits were never slower, on a machine whose tile rate varies
TURNS, MOST_TURNS, SECONDS = 7, 50, 0.05  # of each way, when they race: what short ones fill; the best turn counts
TIE = 1.1  # within 10%, prefer packed weights: timings on a busy machine are noisy
DTYPES = {torch.float32, torch.bfloat16}
AnyModule = TypeVar("AnyModule", bound=nn.Module)


class Shape(NamedTuple):
    """Products that the same way is fastest for."""

    rows: int  # the next power of two
    inputs: int
    outputs: int
    bias: bool
    dtype: torch.dtype  # of the product
    autocast: bool  # which casts the plain way's weights in each call
    threads: int


class Packed(NamedTuple):
    """Weight packed for the kernels, and the tensor it was packed from."""

    source: Tensor  # holds the memory, so that no other weight can have its address
    version: int
    weight: Tensor  # from `int8_split`, or in oneDNN's layout

    def fits(self, weight: Tensor) -> bool:
        """Whether the weight is unchanged since it was packed."""
        return (
            self.version == weight._version
            and self.source.data_ptr() == weight.data_ptr()
            and self.source.shape == weight.shape
            and self.source.stride() == weight.stride()
        )


FASTER: dict[Shape, bool] = {}  # whether the packed weight was, when this process first met the shape


@final
class FastLinear(nn.Linear):
    """What `accelerate` makes of an `nn.Linear`: the same object with the same parameters, and another `forward`.

    The plain way runs where gradients are needed, while compiling or tracing, under `torch.func`, off the CPU, in
    other types than float32 and bfloat16, and where it is faster.
    """

    _packs: dict[torch.dtype, Packed]
    _dtype: torch.dtype | None
    _plain: type[nn.Linear]  # its class before
    splits: bool = True  # as in `Linear`

    @property
    def kernel_weights(self) -> KernelWeights | None:
        """Kernel arguments of the map; None if it computes in another dtype than that of its weight."""
        return kernel_weights(self.weight, self.bias) if self._dtype in (None, self.weight.dtype) else None

    def forward(self, input: Tensor) -> Tensor:  # the name that nn.Linear has
        """The map.

        Args:
            input: (..., inputs).

        Returns:
            (..., outputs).
        """
        if torch.compiler.is_compiling() or (dtype := self._product_dtype(input)) is None:
            return linear(input, self.weight, self.bias, splits=self.splits)
        autocast = torch.is_autocast_enabled("cpu")
        if dtype != input.dtype and not autocast:  # as `accelerate` was asked: nothing to race against
            return self._multiply(input, self._packed(dtype), dtype).to(input.dtype)
        rows = input.numel() // self.in_features
        if self.splits and rows >= SURE and dtype == torch.float32 and not autocast and has_int8_split():
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
                lambda: linear(input, self.weight, self.bias, splits=self.splits),
            )
        if not faster:
            return linear(input, self.weight, self.bias, splits=self.splits)
        return self._multiply(input, self._packed(dtype), dtype)

    def _product_dtype(self, x: Tensor) -> torch.dtype | None:
        """Compute dtype of a product with the packed weight; None if `nn.Linear` must compute it."""
        weight, bias = self.weight, self.bias
        if type(x) not in (Tensor, nn.Parameter) or type(weight) is not nn.Parameter or torch.jit.is_tracing():
            return None
        if torch.is_grad_enabled() and (
            x.requires_grad or weight.requires_grad or (bias is not None and bias.requires_grad)
        ):
            self._packs.clear()  # a step may follow, and write as it likes
            return None
        autocast = torch.is_autocast_enabled("cpu")
        dtype = torch.get_autocast_dtype("cpu") if autocast else self._dtype or x.dtype
        fits = {x.dtype, weight.dtype} <= DTYPES and (autocast or x.dtype == weight.dtype)
        if not (fits and runs_here(dtype)):
            return None
        shaped = x.dim() > 0 and x.shape[-1] == weight.shape[1] and x.numel() > 0 and weight.numel() > 0
        if not shaped or x.device.type != "cpu" or weight.device.type != "cpu" or x.layout != torch.strided:
            return None
        if weight.is_inference() or torch._C._functorch.is_functorch_wrapped_tensor(x):  # no version; vmap and the like
            return None
        return dtype if forward_ad.unpack_dual(x).tangent is None else None

    def _packed(self, dtype: torch.dtype, *, keep: bool = True) -> Tensor:
        """The weight laid out for products, made anew if the weight has changed."""
        packed_weight = self._packs.get(dtype)
        if packed_weight is None or not packed_weight.fits(self.weight):
            with torch.no_grad(), torch.autocast("cpu", enabled=False):
                plain = self.weight.detach()
                splittable = self.splits and dtype == plain.dtype == torch.float32 and is_map(plain, None)
                splittable = splittable and has_int8_split()
                packed = int8_split(plain) if splittable else None
                if packed is None:
                    packed = torch.ops.mkldnn._reorder_linear_weight(plain.to(dtype).contiguous(), LAYOUT_ROWS)
            packed_weight = Packed(plain, self.weight._version, packed)
            if keep:
                self._packs[dtype] = packed_weight
        return packed_weight.weight

    def _multiply(self, x: Tensor, weight: Tensor, dtype: torch.dtype) -> Tensor:
        bias = None if self.bias is None else self.bias.to(dtype).contiguous()
        if weight.dtype == torch.uint8:
            return int8_split_linear(x.to(dtype), weight, self.weight, bias)
        product: Tensor = torch.ops.mkldnn._linear_pointwise(x.to(dtype), weight, bias, "none", [], "")
        return product

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> "FastLinear":
        self._packs.clear()
        super()._apply(fn, recurse)
        return self

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_packs": {}}  # opaque to pickle, and soon made again


def accelerate_linear(module: nn.Module, dtype: object = None) -> None:
    """The part of `accelerate` that linear maps have, in place.

    Args:
        module: anyone's, or an `nn.Linear` itself.
        dtype: what products run in, torch.bfloat16 or torch.float32; by default the type of weights and inputs.

    Raises:
        ConfigError: something else than a module, or another dtype.
    """
    check_module("accelerate", module)
    if not (dtype is None or (isinstance(dtype, torch.dtype) and dtype in DTYPES)):
        raise ConfigError(f"accelerate: dtype={show(dtype)}; expected torch.bfloat16, torch.float32, 'int8' or None")
    for part in module.modules():
        if type(part) in (nn.Linear, Linear) and not customized(part):
            part._plain, part.__class__ = type(part), FastLinear
        if type(part) is FastLinear:
            part._packs, part._dtype = {}, dtype


def restore_linear(module: nn.Module) -> None:
    """Undo `accelerate_linear`, in place.

    Raises:
        ConfigError: something else than a module.
    """
    check_module("restore", module)
    for part in module.modules():
        if type(part) is FastLinear:
            part.__class__ = part._plain
            del part._packs, part._dtype, part._plain


def check_module(owner: str, module: AnyModule) -> AnyModule:
    """The module; raises ConfigError for anything else."""
    if not isinstance(module, nn.Module):
        raise ConfigError(f"{owner}: got {show(module)}; expected a torch.nn.Module")
    return module


def customized(linear: nn.Linear) -> bool:
    """Whether the forward pass of the map was modified, as old-style `weight_norm` does by a hook."""
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
    """Whether the first is faster or about as fast, by the best of some times in turn, each after a run to warm up."""
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
