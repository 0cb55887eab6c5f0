"""What ONNX Runtime computes of exported models, for other batches and lengths than the example's."""

import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import regard as rg
from tests.checkpoints.made import translator
from tests.checkpoints.published import encoder

pytest.importorskip("onnxscript")
onnxruntime = pytest.importorskip("onnxruntime")

WORDS = rg.Vocabulary(size=50)
LENGTHS = torch.tensor([9, 8, 7])  # of `padded(3, 9)`
SIZES: dict[str, Any] = {"embed_dim": 16, "num_heads": 2, "ffn_dim": 32}
STACKS: dict[str, Any] = {**SIZES, "encoder_layers": 1, "decoder_layers": 2}


def tokens(batch: int, length: int) -> Tensor:
    return torch.randint(3, 14, (batch, length))


def padded(batch: int, length: int) -> Tensor:
    """Sources of unlike lengths, padded with 0."""
    found = tokens(batch, length)
    for row in range(1, batch):
        found[row, -row:] = 0
    return found


MODELS: dict[str, tuple[Any, list[list[Tensor]]]] = {
    "transformer": (
        rg.Transformer(rg.TransformerConfig(vocabulary=WORDS, norm="pre", **STACKS)),
        [
            [tokens(2, 5), torch.tensor([5, 5]), tokens(2, 4)],
            [padded(3, 9), LENGTHS, tokens(3, 2)],
            [tokens(1, 1), torch.tensor([1]), tokens(1, 1)],
        ],
    ),
    "translator": (translator(), [[padded(3, 9), LENGTHS, tokens(3, 2)]]),
    "t5": (
        rg.T5(rg.T5Config(vocabulary=rg.Vocabulary(size=50, pad=0, bos=0, eos=1), head_dim=8, **STACKS)),
        [[padded(3, 9), LENGTHS, tokens(3, 11)]],
    ),
    "gpt": (
        rg.GPT(rg.GPTConfig(vocabulary=WORDS, num_layers=2, max_length=32, band=4, **SIZES)),
        [[tokens(3, 9)], [tokens(1, 1)], [tokens(4, 32)]],
    ),
    "llama": (
        rg.Llama(rg.LlamaConfig(vocabulary=WORDS, num_layers=2, num_kv_heads=1, windows=(None, 3), **SIZES)),
        [[tokens(3, 9)]],
    ),
    "encoder": (encoder(pooler=True), [[tokens(3, 9), torch.tensor([9, 4, 2])], [tokens(2, 5), torch.tensor([5, 5])]]),
    "roberta": (
        encoder(family="roberta", pad=0, max_positions=12, masked_words=False),
        [[padded(3, 9), LENGTHS]],
    ),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", MODELS)
def test_outputs_agree(name: str, tmp_path: Path) -> None:
    model, inputs = MODELS[name]
    module: nn.Module = getattr(model, "module", model)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter += 0.1 * torch.randn_like(parameter)
    module.train()
    with warnings.catch_warnings(action="ignore"):
        rg.export_onnx(model, tmp_path / "model.onnx")
    assert module.training
    attentions = [part for part in module.modules() if isinstance(part, rg.MultiHeadAttention)]
    assert {part.backend for part in attentions} == {"auto"}
    module.eval()
    session = onnxruntime.InferenceSession(tmp_path / "model.onnx")
    names = [x.name for x in session.get_outputs()]
    assert "logits" in names or name == "roberta"
    for given in inputs:
        found = session.run(
            names, dict(zip([x.name for x in session.get_inputs()], [x.numpy() for x in given], strict=True))
        )
        with torch.no_grad():
            expected = module(*given)
        for one, x in zip(names, found, strict=True):
            mine = getattr(expected, one)
            if name in ("encoder", "roberta") and one != "pooled":  # at the places of padding they mean nothing
                real = torch.arange(mine.shape[1]) < given[1][:, None]
                x, mine = x[real.numpy()], mine[real]
            torch.testing.assert_close(torch.from_numpy(x), mine, rtol=0, atol=1e-5 * max(1.0, float(mine.abs().max())))
