"""Models as graphs that ONNX Runtime and its like run, without PyTorch."""

import importlib.util
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, final

import torch
from torch import Tensor, nn

from regard.errors import UnsupportedError
from regard.layers.multi_head_attention import MultiHeadAttention
from regard.models.language_model import LanguageModel
from regard.models.t5 import T5
from regard.models.text_encoder import TextEncoder
from regard.models.transformer import Transformer

BACKEND = "sdpa"  # whose operations ONNX has
BATCH, LENGTH, TARGETS = 2, 5, 4  # sizes of the example that is traced; other sizes run as well


def export_onnx(model: Any, path: str | Path) -> None:
    """Write a model as one ONNX graph, for batches and lengths of any size.

    Inputs are int64 token ids. An encoder-decoder has `inputs` (B, S), `lengths` (B,) of them and `targets` (B, T), and
    the output `logits` (B, T, N); a language model `tokens` (B, L) and `logits` (B, L, N); an encoder `tokens` (B, L)
    and `lengths` (B,), and the outputs `hidden` (B, L, D), and `logits` (B, L, N) and `pooled` (B, D) if it has them.
    It needs the packages onnx and onnxscript: pip install 'regard[onnx]'.

    Args:
        model: what `regard.load` gives, or a module alone.
        path: of the file, which ends in ".onnx"; made or overwritten, and beside it ".onnx.data" for large weights.

    Raises:
        UnsupportedError: packages that are not installed; a model of another kind, such as an RNN, whose steps a graph
            cannot count; attention that the backend "sdpa" does not compute, such as other scores than dot products.
        OSError: a file that cannot be written.
    """
    missing = [name for name in ("onnx", "onnxscript") if importlib.util.find_spec(name) is None]
    if missing:
        raise UnsupportedError(f"export_onnx needs {' and '.join(missing)}: pip install 'regard[onnx]'")
    module = getattr(model, "module", model)
    kinds: dict[type[nn.Module], type[_Graph]] = {
        Transformer: _Translates, T5: _Translates, LanguageModel: _GoesOn, TextEncoder: _Reads,
    }  # fmt: skip
    graph = next((kinds[kind](module) for kind in kinds if isinstance(module, kind)), None)
    if graph is None:
        known = ", ".join(kind.__name__ for kind in kinds)
        raise UnsupportedError(f"export_onnx: {type(module).__name__} is not supported; expected one of {known}")
    device = next(module.parameters()).device
    tokens = torch.ones(BATCH, LENGTH, dtype=torch.int64, device=device)
    more = {"targets": tokens[:, :TARGETS], "lengths": torch.full((BATCH,), LENGTH, device=device)}
    example = tuple(more.get(name, tokens) for name in graph.inputs)
    sizes = tuple(dict.fromkeys(range(x.dim()), torch.export.Dim.DYNAMIC) for x in example)
    with _ready(module), torch.no_grad():
        outputs = [name for name in graph.outputs if name in graph.named(*example)]  # which refuses other attention
        found = torch.onnx.export(
            graph,
            example,
            dynamo=True,
            dynamic_shapes=sizes,
            input_names=graph.inputs,
            output_names=outputs,
            verbose=False,
        )
    found.save(path)


class _Graph(nn.Module):
    """A model with one way to be run.

    Args:
        model: which.
    """

    inputs: tuple[str, ...]
    outputs: tuple[str, ...]

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def named(self, *inputs: Tensor) -> dict[str, Tensor]:
        """The outputs that the model has, by name."""
        found = self.model(*inputs)
        return {name: x for name in self.outputs if (x := getattr(found, name)) is not None}


@final
class _Translates(_Graph):
    inputs, outputs = ("inputs", "lengths", "targets"), ("logits",)

    def forward(self, inputs: Tensor, lengths: Tensor, targets: Tensor) -> tuple[Tensor, ...]:
        return tuple(self.named(inputs, lengths, targets).values())


@final
class _GoesOn(_Graph):
    inputs, outputs = ("tokens",), ("logits",)

    def forward(self, tokens: Tensor) -> tuple[Tensor, ...]:
        return tuple(self.named(tokens).values())


@final
class _Reads(_Graph):
    inputs, outputs = ("tokens", "lengths"), ("hidden", "logits", "pooled")

    def forward(self, tokens: Tensor, lengths: Tensor) -> tuple[Tensor, ...]:
        return tuple(self.named(tokens, lengths).values())


@contextmanager
def _ready(module: nn.Module) -> Iterator[None]:
    """The module in evaluation mode, with attention that ONNX has operations for; all is as before afterwards."""
    attentions = [(part, part.backend) for part in module.modules() if isinstance(part, MultiHeadAttention)]
    modes = [(part, part.training) for part in module.modules()]
    module.eval()
    for part, _ in attentions:
        part.backend = BACKEND
    try:
        yield
    finally:
        for part, backend in attentions:
            part.backend = backend
        for part, training in modes:
            part.training = training
