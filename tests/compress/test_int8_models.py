"""Models in int8: the same tokens in any batch, saved and loaded; wrong folders get an error of one line."""

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch

import regard as rg
from regard.checkpoints.folder import read_weights_info
from regard.errors import CheckpointError, ConfigError, UnsupportedError
from regard.layers.quantization import quantize_maps
from regard.layers.quantized_linear import QuantizedEmbedding, QuantizedLinear, QuantizedWeight, is_quantized
from regard.layers.step import decoder_step
from regard.models.bert import Bert, BertConfig
from regard.models.gpt import GPT, GPTConfig
from regard.models.llama import Llama, LlamaConfig
from regard.models.seq2seq import Vocabulary
from regard.models.t5 import T5, T5Config
from regard.models.whisper import Whisper, WhisperConfig
from tests.compress.made import RECORDS, transformer, translator
from tests.layers.test_step import needs_kernels

SOURCES = [[5 + (7 * i + j) % 80 for j in range(length)] for i, length in enumerate((3, 9, 31, 32, 33, 50, 70, 4))]


def tokens(model: Any, search: Any, batch_size: int) -> list[tuple[list[int], float]]:
    results = rg.generate(model, SOURCES, search=search, batch_size=batch_size, max_length=12)
    return [(result[0].tokens, result[0].score) for result in results]


@pytest.mark.parametrize("search", [rg.Greedy(), rg.Beam(3)], ids=["greedy", "beam"])
def test_the_same_tokens_and_scores_in_any_batch_and_on_two_threads(search: Any) -> None:
    model, threads = quantize_maps(transformer()), torch.get_num_threads()
    alone = tokens(model, search, 1)
    assert tokens(model, search, len(SOURCES)) == alone
    torch.set_num_threads(2)
    try:
        assert tokens(model, search, 3) == alone
    finally:
        torch.set_num_threads(threads)


def test_copies_give_the_same_tokens() -> None:
    model = quantize_maps(transformer())
    assert tokens(copy.deepcopy(model), rg.Greedy(), 4) == tokens(model, rg.Greedy(), 4)


@needs_kernels
def test_steps_are_fused() -> None:
    for model in (quantize_maps(transformer()), copy.deepcopy(quantize_maps(transformer()))):
        assert not any(hasattr(decoder_step(layer), "__self__") for layer in model.decoder)


def test_the_output_projection_has_the_codes_of_the_embedding() -> None:
    model = quantize_maps(transformer())
    assert isinstance(model.embedding, QuantizedEmbedding)
    assert model.projection.weight.codes is model.embedding.codes


def test_cross_entropy_is_that_of_the_logits() -> None:
    model = quantize_maps(transformer())
    inputs, targets = torch.randint(3, 90, (2, 7)), torch.randint(3, 90, (2, 6))
    with torch.no_grad():
        output = model(inputs, None, targets)
        loss = output.cross_entropy(targets, label_smoothing=0.1)
        logits = output.logits.flatten(0, 1)
        for smoothing, found in ((0.0, loss.plain), (0.1, loss.smoothed)):
            expected = torch.nn.functional.cross_entropy(
                logits, targets.flatten(), reduction="sum", label_smoothing=smoothing
            )
            assert torch.allclose(found, expected, rtol=1e-5)


WORDS = Vocabulary(size=300)
SMALL = {"embed_dim": 64, "num_heads": 2}
MODELS: dict[str, Callable[[], Any]] = {
    "gpt": lambda: GPT(GPTConfig(vocabulary=WORDS, ffn_dim=96, num_layers=1, **SMALL)),
    "llama": lambda: Llama(LlamaConfig(vocabulary=WORDS, ffn_dim=96, num_layers=1, **SMALL)),
    "llama, untied": lambda: Llama(LlamaConfig(vocabulary=WORDS, ffn_dim=96, num_layers=1, tie_output=False, **SMALL)),
    "bert": lambda: Bert(BertConfig(vocab_size=300, ffn_dim=96, num_layers=1, masked_words=True, **SMALL)),
    "t5": lambda: T5(T5Config(vocabulary=WORDS, ffn_dim=96, encoder_layers=1, decoder_layers=1, head_dim=32, **SMALL)),
    "whisper": lambda: Whisper(WhisperConfig(vocabulary=WORDS, ffn_dim=96, num_mels=8, **SMALL)),
}


@pytest.mark.parametrize("name", MODELS)
def test_other_families(name: str) -> None:
    torch.manual_seed(0)
    model, words = MODELS[name]().eval(), torch.randint(3, 300, (2, 9))
    inputs = {T5: (words, None, words), Whisper: (torch.randn(2, 9, 8), None, words)}.get(type(model), (words,))
    with torch.no_grad():
        exact = model(*inputs).logits
        quantize_maps(model)
        logits = model(*inputs).logits
    assert isinstance(model.embedding, QuantizedEmbedding)
    if not isinstance(model, Bert):  # which projects in its head
        assert isinstance(model.projection.weight, QuantizedWeight)
    assert any(isinstance(part, QuantizedLinear) for part in model.modules())
    assert 0 < (logits - exact).norm() / exact.norm() < 0.05


def test_loaded_and_saved(tmp_path: Path) -> None:
    full = translator()
    full.save(tmp_path / "full")
    made = rg.load(tmp_path / "full", dtype="int8")
    made.save(tmp_path / "int8")
    again = rg.load(tmp_path / "int8")
    assert json.loads((tmp_path / "int8" / "config.json").read_text())["dtype"] == "int8"
    sizes = [read_weights_info(tmp_path / name).size for name in ("full", "int8")]
    assert sizes[1] < 0.4 * sizes[0]
    assert all(torch.equal(x, made.module.state_dict()[name]) for name, x in again.module.state_dict().items())
    assert not any(part.original for part in again.module.modules() if is_quantized(part))
    texts = [source for source, _ in RECORDS[:2]]
    assert [x.text for x in again.translate(texts)] == [x.text for x in made.translate(texts)]
    again.save(tmp_path / "twice")
    assert (tmp_path / "twice" / "model.safetensors").read_bytes() == (
        tmp_path / "int8" / "model.safetensors"
    ).read_bytes()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("int8")
    runner = translator()
    quantize_maps(runner.module)
    runner.save(path)
    return path


def damaged(folder: Path, to: Path, change: Callable[[dict[str, torch.Tensor]], object]) -> Path:
    """A copy of a folder with other tensors."""
    for file in folder.iterdir():
        (to / file.name).write_bytes(file.read_bytes())
    tensors = safetensors.torch.load_file(to / "model.safetensors")
    change(tensors)
    safetensors.torch.save_file(tensors, to / "model.safetensors")
    return to


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda x: x.pop("encoder.0.feed_forward.expand.scales"), "missing: encoder.0.feed_forward.expand.scales"),
        (lambda x: x.update({"more.codes": torch.zeros(2)}), "it has int8 codes of more, which the model has not"),
        (lambda x: x.update({"embedding.codes": x["embedding.codes"][:1]}), "of another shape: embedding.codes"),
        (lambda x: x.update({"embedding.codes": x["embedding.codes"].float()}), "of another dtype: embedding.codes"),
        (lambda x: [x.pop(name) for name in list(x) if name.endswith(".codes")], "it has no int8 codes"),
    ],
    ids=["missing", "unknown", "shape", "dtype", "floats"],
)
def test_wrong_folders(folder: Path, tmp_path: Path, change: Callable[..., object], message: str) -> None:
    with pytest.raises(CheckpointError) as caught:
        rg.load(damaged(folder, tmp_path, change))
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_folder_that_is_cut_off(folder: Path, tmp_path: Path) -> None:
    damaged(folder, tmp_path, lambda x: None)
    weights = tmp_path / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    with pytest.raises(CheckpointError, match="is damaged, or not a safetensors file"):
        rg.load(tmp_path)


def test_what_int8_folders_refuse(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="has int8 weights; load the float32 folder"):
        rg.load(folder, dtype="float32")
    with pytest.raises(ConfigError, match="dtype='int4'; expected 'float32' or 'int8', or None"):
        rg.load(folder, dtype="int4")
    with pytest.raises(ConfigError, match="dtype='float16' of a model with int8 weights"):
        rg.load(folder).save(tmp_path / "half", dtype="float16")
    with pytest.raises(UnsupportedError, match="cannot be trained"):
        rg.load(folder).module.train()
    with pytest.raises(UnsupportedError, match="int8"):
        rg.export_hf(rg.load(folder), tmp_path / "hf")
    damaged(folder, tmp_path, lambda x: None)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**config, "dtype": "int4"}))
    with pytest.raises(CheckpointError, match=r"has dtype 'int4'; expected \"int8\", or no such entry"):
        rg.load(tmp_path)
