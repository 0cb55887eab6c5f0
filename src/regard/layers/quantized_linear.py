"""Linear maps and embeddings in int8 (W8A8): weights with a scale for each output, inputs with one for each row.

    y = (codes of x) (codes of W)^T * scale of x * scale of W + b

Codes are whole numbers within +-127; a row's scale is its largest magnitude / 127. Inputs are quantized in each call,
a row at a time. The sums of products are exact in int32, and the rest is computed in the same order everywhere, so a
row's result is bitwise the same in any batch, on any number of threads, in any instruction set and without the kernels.

Source: Dettmers et al. 2022, "LLM.int8()", arXiv 2208.07339, section 2.2, vector-wise quantization.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, final

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.modules import module as torch_module

from regard import kernels
from regard.attention.check import show
from regard.attention.engine.tracing import is_traced
from regard.errors import ShapeError, UnsupportedError
from regard.layers.linear import KernelWeights, rows_of

CODES = ".codes"  # ends the name of a tensor of codes
MAX_CODE = 127
SMALLEST = 1e-30  # rows of smaller numbers only have the codes 0
BLOCK, QUAD, DEPTH_STEP = 16, 4, 64  # outputs of a block, neighboring features, and what features are padded to
MAX_DEPTH = 1 << 17  # features; sums of more products of codes could overflow int32


@final
@dataclass(frozen=True, eq=False)
class QuantizedWeight:
    """Weight of a linear map, or the rows of an embedding, in int8.

    Args:
        codes: (blocks of 16 outputs, features / 4, 16, 4), int8: the order in which the kernels read them, padded with
            zeros to whole blocks and to multiples of 64 features.
        scales: (outputs,), float32.
        sums: (outputs,), int32: of each output's codes.
        depth: number of features.
    """

    codes: Tensor
    scales: Tensor
    sums: Tensor
    depth: int

    def __len__(self) -> int:
        return len(self.scales)

    def detach(self) -> "QuantizedWeight":
        """The weight itself, which has no gradient."""
        return self

    @property
    def kernel_weights(self) -> KernelWeights:
        """Kernel arguments of the weight, without the bias."""
        return len(self), self.depth, 0, 0, 0, self.codes.data_ptr(), self.scales.data_ptr(), self.sums.data_ptr()

    def linear(self, x: Tensor, bias: Tensor | None = None) -> Tensor:
        """x W^T + b.

        Args:
            x: (..., depth).
            bias: (outputs,), float32, or None.

        Returns:
            (..., outputs), in the dtype of x.

        Raises:
            ShapeError: x has another number of features.
            UnsupportedError: a gradient of x is needed.
        """
        return linear_maps([(self, bias)], x)[0]

    def rows(self, indices: Tensor) -> Tensor:
        """Rows of the weight in float32, (..., depth), by their indices (...)."""
        codes = self.codes[indices // BLOCK, :, indices % BLOCK].flatten(-2)[..., : self.depth]
        return codes * self.scales[indices][..., None]

    def dequantized(self) -> Tensor:
        """The whole weight in float32, (outputs, depth)."""
        return plain_codes(self.codes, len(self), self.depth) * self.scales[:, None]


def quantize_rows(x: Tensor) -> tuple[Tensor, Tensor]:
    """Quantize each row by its largest magnitude.

    Args:
        x: (rows, features), float32.

    Returns:
        Codes (rows, features), int8, and scales (rows,), NaN for a row with a number that is not finite.
    """
    largest = x.abs().amax(-1)
    limit = largest.new_tensor(MAX_CODE)  # a tensor: a number would be multiplied by the reciprocal, which rounds twice
    factor = limit / torch.where(largest > SMALLEST, largest, torch.inf)
    codes = (x * factor[:, None]).round().nan_to_num(0, 0, 0).to(torch.int8)
    return codes, torch.where(largest.isfinite(), largest / limit, torch.nan)


def block_codes(codes: Tensor) -> Tensor:
    """Codes (outputs, depth) in the order of `QuantizedWeight.codes`."""
    outputs, depth = codes.shape
    padded = functional.pad(codes, (0, -depth % DEPTH_STEP, 0, -outputs % BLOCK))
    return padded.view(-1, BLOCK, padded.shape[1] // QUAD, QUAD).transpose(1, 2).contiguous()


def plain_codes(codes: Tensor, outputs: int, depth: int) -> Tensor:
    """The inverse of `block_codes`: (outputs, depth)."""
    return codes.transpose(1, 2).flatten(2).flatten(0, 1)[:outputs, :depth]


def linear_maps(maps: Sequence[tuple[QuantizedWeight, Tensor | None]], x: Tensor) -> list[Tensor]:
    """Linear maps that share an input, which is quantized once.

    Args:
        maps: weights and biases.
        x: (..., depth).

    Returns:
        An output for each map, (..., outputs), in the dtype of x.

    Raises:
        ShapeError: x has another number of features.
        UnsupportedError: a gradient of x is needed.
    """
    if x.requires_grad and torch.is_grad_enabled():
        raise UnsupportedError(
            "int8 weights have no gradients: a linear map in int8 got an input that requires one. Train, attribute and "
            'fine-tune in float32: load the model without dtype="int8", or call regard.restore(model) after '
            'regard.accelerate(model, dtype="int8"); call this one in torch.no_grad()'
        )
    depth = maps[0][0].depth
    if x.dim() == 0 or x.shape[-1] != depth:
        raise ShapeError(f"a linear map of {depth} features in int8 got {show(x)}; expected (..., {depth})")
    if kernels.missing() is not None or not _is_plain(x) or x.numel() == 0:
        return [_reference(weight, bias, x) for weight, bias in maps]
    rows = rows_of(x if x.dtype is torch.float32 else x.float())
    outputs = [rows.new_empty(*x.shape[:-1], len(weight)) for weight, _ in maps]
    kernels.module().int8_linear(
        len(rows), rows.data_ptr(), rows.stride(0),
        [(with_bias(weight, bias), y.data_ptr()) for (weight, bias), y in zip(maps, outputs, strict=True)],
        torch.get_num_threads(),
    )  # fmt: skip
    return outputs if x.dtype is torch.float32 else [y.to(x.dtype) for y in outputs]


def joint_maps(layers: Sequence[nn.Module], x: Tensor) -> list[Tensor] | None:
    """Outputs of some layers on the same input, which is quantized once.

    Args:
        layers: linear maps of any kind.
        x: (..., depth).

    Returns:
        Their outputs; None unless all of them are in int8 and nobody has put hooks on them.
    """
    if not all(isinstance(layer, QuantizedLinear) and not is_hooked(layer) for layer in layers):
        return None
    return linear_maps([(layer.quantized, layer.bias) for layer in layers], x)  # type: ignore[misc,union-attr]


def is_hooked(module: nn.Module) -> bool:
    """Whether a call of the module does more than its `forward`."""
    return bool(module._forward_hooks or module._forward_pre_hooks or torch_module._global_forward_hooks)


def with_bias(weight: QuantizedWeight, bias: Tensor | None) -> KernelWeights:
    """Kernel arguments of a map."""
    plain = weight.kernel_weights
    return plain if bias is None else (*plain[:4], bias.data_ptr(), *plain[5:])


def _is_plain(x: Tensor) -> bool:
    """Whether the kernels can read `x`: a dense tensor on the CPU, not traced."""
    return type(x) in (Tensor, nn.Parameter) and x.is_cpu and x.layout is torch.strided and not is_traced()


def _reference(weight: QuantizedWeight, bias: Tensor | None, x: Tensor) -> Tensor:
    """The map in PyTorch: float64 holds the sums of products exactly."""
    codes, scales = quantize_rows(x.detach().reshape(-1, weight.depth).float())
    right = plain_codes(weight.codes, len(weight), weight.depth)
    y = (codes.double() @ right.double().t()).float() * (scales[:, None] * weight.scales)
    y = y if bias is None else y + bias
    return y.view(*x.shape[:-1], len(weight)).to(x.dtype)


class _Quantized(nn.Module):
    """Base class of quantized layers: buffers of a `QuantizedWeight`, no training."""

    codes: Tensor
    scales: Tensor
    sums: Tensor

    def __init__(self, outputs: int, depth: int, original: nn.Module | None) -> None:
        super().__init__()
        self.training = False
        # In a tuple, so that it is no part of this module: what `restore` puts back.
        self._original = () if original is None else (original,)
        self._depth = depth
        blocks, quads = -(-outputs // BLOCK), -(-depth // DEPTH_STEP) * DEPTH_STEP // QUAD
        self.register_buffer("codes", torch.zeros(blocks, quads, BLOCK, QUAD, dtype=torch.int8))
        self.register_buffer("scales", torch.zeros(outputs))
        self.register_buffer("sums", torch.zeros(outputs, dtype=torch.int32), persistent=False)

    @property
    def quantized(self) -> QuantizedWeight:
        """The weight in int8."""
        return QuantizedWeight(self.codes, self.scales, self.sums, self._depth)

    @property
    def original(self) -> nn.Module | None:
        """The float32 layer that this one was made from, if it keeps it."""
        return self._original[0] if self._original else None

    @property
    def weight(self) -> Tensor:
        """The weight in float32, (outputs, features), computed anew in each access."""
        return self.quantized.dequantized()

    def fill(self, weight: Tensor) -> None:
        """Quantize a weight (outputs, features)."""
        codes, scales = quantize_rows(weight.detach().float())
        self.codes, self.scales = block_codes(codes), scales
        self.count()

    def count(self) -> None:
        """Compute the sums of the codes, after the codes have changed."""
        self.sums = plain_codes(self.codes, len(self.scales), self._depth).sum(1, dtype=torch.int32)

    def _load_from_state_dict(self, *arguments: Any, **named: Any) -> None:
        super()._load_from_state_dict(*arguments, **named)
        self.count()

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> "_Quantized":
        before = dict(self._buffers)
        super()._apply(fn, recurse)
        for name, x in self._buffers.items():
            if x is not None and x.dtype is not before[name].dtype:  # as .half() has it; scales and biases stay float32
                self._buffers[name] = before[name].to(x.device)
        return self

    def train(self, mode: bool = True) -> "_Quantized":
        """Refuse training mode.

        Raises:
            UnsupportedError: for training mode.
        """
        if mode:
            raise UnsupportedError(
                "a model with int8 weights cannot be trained: they have no gradients. Train the float32 model that it "
                'was made from, and quantize the result; regard.restore(model) undoes accelerate(model, dtype="int8")'
            )
        return self


@final
class QuantizedLinear(_Quantized):
    """Linear map in int8: see `QuantizedWeight`. Its buffers are `codes`, `scales` and, in float32, `bias`.

    Args:
        in_features: number of features.
        out_features: number of outputs.
        bias: whether there is a bias.
        original: the float32 layer, which `restore` puts back; None forgets it.
    """

    def __init__(
        self, in_features: int, out_features: int, bias: bool = True, *, original: nn.Linear | None = None
    ) -> None:
        super().__init__(out_features, in_features, original)
        self.in_features, self.out_features = in_features, out_features
        self.bias: Tensor | None
        self.register_buffer("bias", torch.zeros(out_features) if bias else None)

    @staticmethod
    def of(linear: nn.Linear, *, keep: bool = False) -> "QuantizedLinear":
        """Quantize a linear map; `keep`: hold the original, for `restore`."""
        has_bias = linear.bias is not None
        layer = QuantizedLinear(
            linear.in_features, linear.out_features, has_bias, original=linear if keep else None
        ).to(linear.weight.device)
        layer.fill(linear.weight)
        if has_bias:
            layer.bias = linear.bias.detach().float().clone()
        return layer

    @property
    def kernel_weights(self) -> KernelWeights | None:
        """Kernel arguments of the map; None if it is not on the CPU."""
        return with_bias(self.quantized, self.bias) if self.codes.is_cpu else None

    def forward(self, input: Tensor) -> Tensor:  # the name that nn.Linear has
        """The map.

        Args:
            input: (..., in_features).

        Returns:
            (..., out_features).

        Raises:
            ShapeError: another number of features.
            UnsupportedError: a gradient of the input is needed.
        """
        return self.quantized.linear(input, self.bias)

    def extra_repr(self) -> str:
        return f"in_features={self.in_features}, out_features={self.out_features}, bias={self.bias is not None}"


@final
class QuantizedEmbedding(_Quantized):
    """Embedding in int8, whose codes may be those of the output projection too.

    Args:
        num_embeddings: number of rows.
        embedding_dim: numbers in a row.
        original: the float32 layer, which `restore` puts back; None forgets it.
    """

    def __init__(self, num_embeddings: int, embedding_dim: int, *, original: nn.Embedding | None = None) -> None:
        super().__init__(num_embeddings, embedding_dim, original)
        self.num_embeddings, self.embedding_dim = num_embeddings, embedding_dim

    @staticmethod
    def of(embedding: nn.Embedding, *, keep: bool = False) -> "QuantizedEmbedding":
        """Quantize an embedding; `keep`: hold the original, for `restore`."""
        sizes = embedding.num_embeddings, embedding.embedding_dim
        layer = QuantizedEmbedding(*sizes, original=embedding if keep else None).to(embedding.weight.device)
        layer.fill(embedding.weight)
        return layer

    def forward(self, input: Tensor) -> Tensor:
        """Embed tokens (...) as float32 vectors (..., embedding_dim)."""
        return self.quantized.rows(input)

    def extra_repr(self) -> str:
        return f"{self.num_embeddings}, {self.embedding_dim}"


def is_quantized(module: nn.Module) -> bool:
    """Whether a module itself is a linear map or an embedding in int8."""
    return isinstance(module, _Quantized)


def check_not_int8(owner: str, module: nn.Module) -> None:
    """Raise UnsupportedError for a module with int8 weights, which float formats cannot represent."""
    if any(map(is_quantized, module.modules())):
        raise UnsupportedError(
            f"{owner}: the model has int8 weights, which the format does not have; give the float32 model that it was "
            "made from"
        )


def readable_weight(module: nn.Module) -> Tensor | QuantizedWeight:
    """The weight of a linear map or an embedding in the form that `linear` and `OutputProjection` read."""
    weight: Tensor | QuantizedWeight = module.quantized if isinstance(module, _Quantized) else module.weight  # type: ignore[assignment]
    return weight
