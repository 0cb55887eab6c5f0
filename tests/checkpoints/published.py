"""Tiny published checkpoints, written without the transformers package."""

import json
from pathlib import Path
from typing import Any

import safetensors.torch
import tokenizers
import torch
from tokenizers import decoders, models, normalizers, pre_tokenizers, processors
from torch import Tensor

from regard.data.published_tokenizer import PublishedTokenizer
from regard.models.bert import Bert, BertConfig
from regard.models.bert_names import to_bert
from regard.models.marian import to_marian
from regard.tasks.encode import Encoder
from tests.checkpoints.made import transformer

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


def word_pieces(marks: bool = True) -> PublishedTokenizer:
    """A tokenizer of `WORDS`, with or without the marks around a text."""
    made = tokenizers.Tokenizer(models.WordPiece({word: i for i, word in enumerate(WORDS)}, unk_token="[UNK]"))
    made.normalizer, made.decoder = normalizers.BertNormalizer(), decoders.WordPiece()
    made.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    if marks:
        made.post_processor = processors.TemplateProcessing(
            "[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
        )
    return PublishedTokenizer(made, ROLES if marks else {"unk": "[UNK]"})


def bert(**changes: Any) -> Bert:
    """A model that no two calls make differently, for `word_pieces()`."""
    sizes = {"vocab_size": len(WORDS), "embed_dim": 12, "num_layers": 2, "num_heads": 3, "ffn_dim": 20}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        model = Bert(BertConfig(**{**sizes, "max_positions": 11, **changes})).eval()
        with torch.no_grad():
            for parameter in model.parameters():
                parameter += 0.3 * torch.randn_like(parameter)
    return model


def encoder(marks: bool = True, **changes: Any) -> Encoder:
    """Both together."""
    return Encoder(bert(**changes), word_pieces(marks))


def write_bert(folder: Path, **changes: Any) -> Path:
    """A checkpoint of `bert()` with its tokenizer."""
    write_hub(folder, *to_bert(bert(**changes)))
    (folder / "vocab.txt").write_text("\n".join(WORDS) + "\n")
    return folder
