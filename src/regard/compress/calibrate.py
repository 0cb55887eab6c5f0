"""Errors of a model's linear maps in int8, measured on records."""

from collections.abc import Callable
from contextlib import ExitStack
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from regard.layers.quantization import quantizable
from regard.layers.quantized_linear import QuantizedEmbedding, QuantizedLinear, quantize_rows


class MapError(NamedTuple):
    """Error of a linear map, or of an embedding, in int8."""

    name: str
    outputs: int
    depth: int
    error: float | None  # norm of the outputs' error / norm of the outputs, without bias; None if never called
    vanished: float | None  # share of the inputs' nonzero numbers whose code is 0; of an embedding, the weight's


def calibrate(module: nn.Module, run: Callable[[], object]) -> list[MapError]:
    """Errors of the parts that int8 can hold, on the inputs of a run.

    Args:
        module: in float32.
        run: calls the module on some records.

    Returns:
        An entry for each part, in the order of `named_modules`.
    """
    sums: dict[str, _Sums] = {}
    errors = []
    parts = quantizable(module, embeddings=True)
    with ExitStack() as stack:
        for name, part in parts.items():
            if isinstance(part, nn.Linear):
                sums[name] = _Sums(part)
                stack.callback(part.register_forward_hook(sums[name].add).remove)
        run()
    for name, part in parts.items():
        if isinstance(part, nn.Linear):
            errors.append(MapError(name, part.out_features, part.in_features, *sums[name].shares()))
        elif isinstance(part, nn.Embedding):
            weight = part.weight.detach().float()
            error = (QuantizedEmbedding.of(part).weight - weight).norm() / weight.norm()
            vanished = _vanished(weight) / max(1, int(weight.count_nonzero()))
            errors.append(MapError(name, *weight.shape, float(error), vanished))
    return errors


class _Sums:
    """Sums of squares of a map's outputs and of their errors, over calls."""

    def __init__(self, linear: nn.Linear) -> None:
        self.quantized = QuantizedLinear.of(linear)
        self.error = self.output = 0.0
        self.vanished = self.nonzero = 0

    @torch.no_grad()
    def add(self, module: Any, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        """Forward hook of the map."""
        x = inputs[0].detach().float().reshape(-1, module.in_features)
        exact = output.detach().float().reshape(-1, module.out_features)
        self.error += float((self.quantized(x) - exact).double().square().sum())
        self.output += float((exact if module.bias is None else exact - module.bias).double().square().sum())
        self.vanished += _vanished(x)
        self.nonzero += int(x.count_nonzero())

    def shares(self) -> tuple[float | None, float | None]:
        """Relative error, and share of numbers that vanish."""
        if not self.output:
            return None, None
        return (self.error / self.output) ** 0.5, self.vanished / max(1, self.nonzero)


def _vanished(rows: Tensor) -> int:
    """Number of nonzero numbers whose code is 0."""
    codes, _ = quantize_rows(rows)
    return int(((codes == 0) & (rows != 0)).sum())
