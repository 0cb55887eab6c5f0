"""Misuse of trained models, and folders that are not what they should be: see `cases.py`."""

import json
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest import mock
from unittest.mock import patch

import safetensors.torch
import torch

import regard as rg
from regard.checkpoints import shipped
from regard.checkpoints.device import device_of
from regard.checkpoints.folder import read, save
from regard.errors import CheckpointError, ConfigError, DataError, UnsupportedError
from regard.tasks.evaluate import Metrics, evaluate
from regard.tasks.load import load
from regard.tasks.translate import Translator
from regard.tasks.translation import translate
from tests.checkpoints.made import tokenizer, transformer, translator


def reading(change: Callable[[Path], object]) -> Callable[[], object]:
    """Read a folder after a change to its files."""

    def call() -> object:
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name, "run")
            save(folder, transformer(), tokenizer(), {}, task="translate")
            change(folder)
            return read(folder)

    return call


def with_task(name: str) -> Callable[[], object]:
    """Load a folder whose configuration names another task."""

    def call() -> object:
        with tempfile.TemporaryDirectory() as folder:
            translator().save(folder)
            config(task=name)(Path(folder))
            return load(folder)

    return call


def without_mecab() -> object:
    with patch("sacrebleu.tokenizers.tokenizer_ja_mecab.MeCab", None):
        return Metrics("ja-mecab")


def config(**changes: Any) -> Callable[[Path], object]:
    """Other values in config.json."""
    return lambda folder: text(folder, json.dumps({**json.loads((folder / "config.json").read_text()), **changes}))


def model(**changes: Any) -> Callable[[Path], object]:
    """Other values of the model in config.json."""
    return lambda folder: config(model={**json.loads((folder / "config.json").read_text())["model"], **changes})(folder)


def text(folder: Path, content: str) -> None:
    (folder / "config.json").write_text(content)


def pickled(folder: Path) -> None:
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")


def other_weights(folder: Path) -> None:
    path = folder / "model.safetensors"
    tensors = safetensors.torch.load_file(path)
    tensors["wrong"] = tensors.pop("encoder.0.norms.0.weight", tensors.pop(sorted(tensors)[-1]))
    tensors["embedding.weight"] = tensors["embedding.weight"][:7].contiguous()
    safetensors.torch.save_file(tensors, path)


def without_shipped() -> object:
    """As in a copy of the package that ships no model."""
    kept, shipped.SHIPPED = shipped.SHIPPED, Path("/nowhere/en-it")
    try:
        return load()
    finally:
        shipped.SHIPPED = kept


def saving(dtype: str, number: float) -> object:
    """Save a model that holds a number which it should not."""
    module = transformer()
    with torch.no_grad():
        module.embedding.weight[3, 3] = number
    with tempfile.TemporaryDirectory() as folder:
        return save(folder, module, tokenizer(), {}, task="translate", dtype=dtype)


def run(*texts: Any) -> object:
    return translate(transformer(), tokenizer(), *texts)


def onnx_export(model: torch.nn.Module, installed: object) -> object:
    """As where the packages of ONNX are installed, or are not."""
    with mock.patch("importlib.util.find_spec", return_value=installed):
        return rg.export_onnx(model, "/nowhere/model.onnx")


def entmax_model() -> torch.nn.Module:
    attention = rg.AttentionConfig(normalizer=rg.Entmax(1.5))
    return rg.Transformer(rg.TransformerConfig.from_preset("tiny", rg.Vocabulary(size=20), attention=attention))


CASES: list[tuple[str, Callable[[], object], type[Exception], str]] = [
    (
        "trained-folder-missing",
        lambda: read("/nowhere/run"),
        CheckpointError,
        "/nowhere/run does not exist; expected the folder",
    ),
    ("trained-folder-file", lambda: read(__file__), CheckpointError, "trained_cases.py is a file; expected the folder"),
    (
        "trained-folder-empty",
        reading(lambda f: [x.unlink() for x in f.iterdir()]),
        CheckpointError,
        "the folder has nothing",
    ),
    (
        "trained-weights-missing",
        reading(lambda f: (f / "model.safetensors").unlink()),
        CheckpointError,
        "model.safetensors is missing; the folder has config.json, tokenizer.json",
    ),
    (
        "trained-weights-pickled",
        reading(pickled),
        CheckpointError,
        "has pytorch_model.bin and no model.safetensors: regard reads",
    ),
    (
        "trained-weights-damaged",
        reading(lambda f: (f / "model.safetensors").write_bytes(b"x" * 99)),
        CheckpointError,
        "model.safetensors is damaged, or not a safetensors file: Error while deserializing header: header too large",
    ),
    (
        "trained-weights-of-another-model",
        reading(other_weights),
        CheckpointError,
        f"unexpected: wrong; of another shape: embedding.weight (7, 16), expected ({tokenizer().size}, 16)",
    ),
    (
        "trained-config-no-json",
        reading(lambda f: text(f, "{")),
        CheckpointError,
        "config.json is not JSON: Expecting property",
    ),
    (
        "trained-config-deep",
        reading(lambda f: text(f, "[" * 10**5)),
        CheckpointError,
        "config.json is not JSON: maximum recursion",
    ),
    ("trained-config-list", reading(lambda f: text(f, "[]")), CheckpointError, "json holds []; expected an object of"),
    ("trained-config-empty", reading(lambda f: text(f, "{}")), CheckpointError, 'it has no "format"'),
    (
        "trained-config-format",
        reading(config(format=2)),
        CheckpointError,
        "has format 2; this version of regard reads format 1",
    ),
    (
        "trained-config-task-number",
        reading(config(task=3)),
        CheckpointError,
        'config.json has task 3; expected the name of a job, such as "translate"',
    ),
    ("trained-config-task", with_task("sing"), CheckpointError, "has task 'sing'; expected one of translate"),
    (
        "trained-config-no-model",
        reading(config(model="rnn")),
        CheckpointError,
        'config.json has "model": \'rnn\'; expected {"name": ..., its configuration}',
    ),
    ("trained-config-model", reading(model(name="transformr")), CheckpointError, "did you mean 'transformer'?"),
    ("trained-config-setting", reading(model(embed=3)), CheckpointError, "'embed'; did you mean 'embed_dim'?"),
    ("trained-config-size", reading(model(num_heads=3)), CheckpointError, "describes a model that cannot be built: "),
    (
        "trained-config-size-huge",
        reading(model(ffn_dim=10**12)),
        CheckpointError,
        "describes a model that cannot be built",
    ),
    (
        "trained-config-vocabulary",
        reading(model(vocabulary={"size": 7})),
        CheckpointError,
        f"has a vocabulary of 7 tokens, and tokenizer.json beside it has {tokenizer().size}",
    ),
    ("trained-save-dtype", lambda: saving("float8", 0.0), ConfigError, "unknown dtype 'float8'; did you mean 'float"),
    (
        "trained-save-nan",
        lambda: saving("float32", float("nan")),
        CheckpointError,
        "embedding.weight has values that are not finite; nothing was written",
    ),
    (
        "trained-save-large",
        lambda: saving("float16", 1e9),
        CheckpointError,
        "embedding.weight has values that overflow in torch.float16; nothing was written",
    ),
    (
        "trained-load-shipped",
        without_shipped,
        CheckpointError,
        "this installation of regard has no shipped model: /nowhere/en-it is missing; pass a folder",
    ),
    (
        "device-unknown",
        lambda: device_of("gpu"),
        ConfigError,
        "device='gpu' is unknown; expected auto, cpu, cuda, cuda:0 (the index of a GPU) or mps",
    ),
    (
        "device-wrong",
        lambda: device_of("cpu:x"),
        ConfigError,
        "device='cpu:x' is not a device; expected auto, cpu, cuda, cuda:0 (the index of a GPU) or mps",
    ),
    (
        "device-index",
        lambda: device_of("cpu:7"),
        ConfigError,
        "device='cpu:7' is not available: PyTorch finds 1, numbered from 0; expected at most cpu:0",
    ),
    (
        "device-missing",
        lambda: device_of("mps"),
        ConfigError,
        "device='mps' is not available: PyTorch finds no such device; use cpu",
    ),
    (
        "trained-tokenize",
        lambda: Metrics("cha"),
        ConfigError,
        "tokenize='cha' is none of sacrebleu's; did you mean '",
    ),
    ("trained-tokenize-package", without_mecab, ConfigError, "pip install sacrebleu[ja]"),
    ("trained-translate-one-text", lambda: run("One."), DataError, "texts='One.' must be a list of texts"),
    ("trained-translate-numbers", lambda: run([1]), DataError, "texts=[1] must be a list of texts"),
    (
        "trained-translate-surrogate",
        lambda: run(["a", "b\udcff"]),
        DataError,
        r"text 2 is not valid Unicode at character 1: 'b\udcff'",
    ),
    ("trained-evaluate-nothing", lambda: evaluate(transformer(), tokenizer(), []), DataError, "no pairs to evaluate"),
    (
        "trained-translate-whole",
        lambda: translator(length_ratio=0.1).translate(["a", "word " * 5000]),
        DataError,
        (
            "text 2 has 25001 tokens and is read whole, since outputs for its parts could not be joined; "
            "expected at most 4096: shorten it"
        ),
    ),
    (
        "trained-translate-prefix",
        lambda: translator().translate(["a"], prefix="word " * 30),
        DataError,
        "has 150 tokens, and the model reads at most 23 with the text after it; shorten it",
    ),
    (
        "onnx-packages",
        lambda: onnx_export(transformer(), installed=None),
        UnsupportedError,
        "export_onnx needs onnx and onnxscript: pip install 'regard[onnx]'",
    ),
    (
        "onnx-kind",
        lambda: onnx_export(torch.nn.Linear(2, 2), installed=True),
        UnsupportedError,
        "export_onnx: Linear is not supported; expected one of Transformer, T5, LanguageModel, TextEncoder",
    ),
    (
        "onnx-attention",
        lambda: onnx_export(entmax_model(), installed=True),
        UnsupportedError,
        "backend 'sdpa' cannot compute this call: normalizer: computes Softmax only, not Entmax(alpha=1.5)",
    ),
    (
        "trained-no-tokenizer",
        lambda: Translator(transformer(), None).translate(["a"]),
        CheckpointError,
        "the model's folder has no tokenizer that regard can read; expected tokenizer.json",
    ),
    ("trained-see-blank", lambda: translator().see(" "), DataError, "expected 1 to 23: see one or a few sentences"),
    ("trained-see-long", lambda: translator().see("word " * 99), DataError, "tokens; expected 1 to 23"),
]
