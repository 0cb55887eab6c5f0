"""Export of models to ONNX."""

import importlib.util
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, final

import torch
from torch import Tensor, nn

from regard.errors import UnsupportedError
from regard.layers.multi_head_attention import MultiHeadAttention
from regard.layers.quantized_linear import check_not_int8
from regard.models.language_model import LanguageModel
from regard.models.t5 import T5
from regard.models.text_encoder import TextEncoder
from regard.models.transformer import Transformer

BACKEND = "sdpa"  # the attention backend with ONNX operators
BATCH, LENGTH, TARGETS = 2, 5, 4  # sizes of the traced example; all are dynamic in the graph


def export_onnx(model: Any, path: str | Path) -> None:
    """Export a model as one ONNX graph, with dynamic batch size and lengths.

    Inputs are int64. An encoder-decoder takes `inputs` (B, S), `lengths` (B,) and `targets` (B, T) and returns `logits`
    (B, T, N). A language model takes `tokens` (B, L) and returns `logits` (B, L, N). An encoder takes `tokens` (B, L)
    and `lengths` (B,) and returns `hidden` (B, L, D), and `logits` (B, L, N) and `pooled` (B, D) if it has those heads.
    Requires the packages onnx and onnxscript: pip install 'regard[onnx]'.

    Args:
        model: the result of `regard.load`, or a module alone.
        path: of the file, ending in ".onnx"; overwritten if it exists. Large weights go to ".onnx.data" beside it.

    Raises:
        UnsupportedError: packages that are not installed; a model that cannot be exported, such as an RNN, whose number
            of steps varies, or one with int8 weights; attention that the backend "sdpa" does not support, such as other
            scores than dot products.
        OSError: a file that cannot be written.
    """
    missing = [name for name in ("onnx", "onnxscript") if importlib.util.find_spec(name) is None]
    if missing:
        raise UnsupportedError(f"export_onnx needs {' and '.join(missing)}: pip install 'regard[onnx]'")
    module = getattr(model, "module", model)
    kinds: dict[type[nn.Module], type[_Graph]] = {
        Transformer: _Seq2SeqGraph, T5: _Seq2SeqGraph, LanguageModel: _LanguageModelGraph, TextEncoder: _EncoderGraph,
    }  # fmt: skip
    graph = next((kinds[kind](module) for kind in kinds if isinstance(module, kind)), None)
    if graph is None:
        known = ", ".join(kind.__name__ for kind in kinds)
        raise UnsupportedError(f"export_onnx: {type(module).__name__} is not supported; expected one of {known}")
    check_not_int8("export_onnx", module)
    device = next(module.parameters()).device
    tokens = torch.ones(BATCH, LENGTH, dtype=torch.int64, device=device)
    more = {"targets": tokens[:, :TARGETS], "lengths": torch.full((BATCH,), LENGTH, device=device)}
    example = tuple(more.get(name, tokens) for name in graph.inputs)
    sizes = tuple(dict.fromkeys(range(x.dim()), torch.export.Dim.DYNAMIC) for x in example)
    with _exportable(module), torch.no_grad():
        outputs = [name for name in graph.outputs if name in graph.named(*example)]  # raises for other attention
        program = torch.onnx.export(
            graph,
            example,
            dynamo=True,
            dynamic_shapes=sizes,
            input_names=graph.inputs,
            output_names=outputs,
            verbose=False,
        )
    program.save(path)


class _Graph(nn.Module):
    """A model with named tensors as inputs and outputs.

    Args:
        model: the model.
    """

    inputs: tuple[str, ...]
    outputs: tuple[str, ...]

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def named(self, *inputs: Tensor) -> dict[str, Tensor]:
        """The outputs that the model has, by name."""
        output = self.model(*inputs)
        return {name: x for name in self.outputs if (x := getattr(output, name)) is not None}


@final
class _Seq2SeqGraph(_Graph):
    inputs, outputs = ("inputs", "lengths", "targets"), ("logits",)

    def forward(self, inputs: Tensor, lengths: Tensor, targets: Tensor) -> tuple[Tensor, ...]:
        return tuple(self.named(inputs, lengths, targets).values())


@final
class _LanguageModelGraph(_Graph):
    inputs, outputs = ("tokens",), ("logits",)

    def forward(self, tokens: Tensor) -> tuple[Tensor, ...]:
        return tuple(self.named(tokens).values())


@final
class _EncoderGraph(_Graph):
    inputs, outputs = ("tokens", "lengths"), ("hidden", "logits", "pooled")

    def forward(self, tokens: Tensor, lengths: Tensor) -> tuple[Tensor, ...]:
        return tuple(self.named(tokens, lengths).values())


@contextmanager
def _exportable(module: nn.Module) -> Iterator[None]:
    """Set evaluation mode and the backend with ONNX operators; restore both afterwards."""
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
