"""Tiny published checkpoints, written without the transformers package."""

import json
from pathlib import Path
from typing import Any

import safetensors.torch
import tokenizers
from tokenizers import models, pre_tokenizers
from torch import Tensor

from regard.data.published_tokenizer import PublishedTokenizer
from regard.models.marian import to_marian
from tests.trained.made import transformer

ROLES = {"unk": "[UNK]", "pad": "[PAD]", "cls": "[CLS]", "sep": "[SEP]", "mask": "[MASK]"}
WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "the", "cat", "sat", "on", "mat", "##s", ".", "a", "##t"]


def write_hub(folder: Path, config: dict[str, Any], state: dict[str, Tensor]) -> Path:
    """A folder in the hub's layout, without a tokenizer."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config))
    tensors = {name: x.contiguous().clone() for name, x in state.items()}
    safetensors.torch.save_file(tensors, folder / "model.safetensors", {"format": "pt"})
    return folder


def shard(folder: Path) -> Path:
    """The same folder with its tensors in two files."""
    tensors = safetensors.torch.load_file(folder / "model.safetensors")
    names = sorted(tensors)
    halves = {"model-1.safetensors": names[::2], "model-2.safetensors": names[1::2]}
    for file, some in halves.items():
        safetensors.torch.save_file({name: tensors[name] for name in some}, folder / file)
    index = {"metadata": {}, "weight_map": {name: file for file, some in halves.items() for name in some}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    (folder / "model.safetensors").unlink()
    return folder


def marian(folder: Path) -> Path:
    """A Marian checkpoint of `transformer()`, without its vocabulary."""
    return write_hub(folder, *to_marian(transformer()))


def word_level() -> PublishedTokenizer:
    """A tokenizer of `WORDS`."""
    ids = {word: i for i, word in enumerate(WORDS)}
    made = tokenizers.Tokenizer(models.WordLevel(ids, unk_token="[UNK]"))
    made.pre_tokenizer = pre_tokenizers.Whitespace()
    return PublishedTokenizer(made, ROLES)
