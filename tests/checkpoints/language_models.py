"""Tiny language models with tokenizers: GPT-2's layout with byte-level pieces, and one with regard's own tokenizer."""

import functools
import json
from pathlib import Path

import tokenizers
import torch
from tokenizers import decoders, models, pre_tokenizers, trainers

from regard.data.published_tokenizer import PublishedTokenizer
from regard.models.gpt import GPT, GPTConfig, to_gpt2
from regard.models.seq2seq import Vocabulary
from regard.tasks.complete import TextGenerator
from tests.checkpoints.made import SENTENCES, tokenizer
from tests.checkpoints.published import write_hub

END = "<|endoftext|>"


@functools.cache
def byte_level() -> PublishedTokenizer:
    made = tokenizers.Tokenizer(models.BPE())
    made.pre_tokenizer, made.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=300, special_tokens=[END], initial_alphabet=sorted(alphabet), show_progress=False
    )
    made.train_from_iterator(SENTENCES, trainer)
    return PublishedTokenizer(made, {"bos": END, "eos": END})


def gpt(size: int, **marks: int) -> GPT:
    """A model that no two calls make differently, and whose texts differ."""
    words = Vocabulary(size=size, **marks)
    config = GPTConfig(vocabulary=words, embed_dim=16, num_heads=2, num_layers=2, max_length=40, band=4)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(7)
        model = GPT(config).eval()
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(0.3 * torch.randn_like(parameter))
    return model


def completer() -> TextGenerator:
    """With a published tokenizer, whose bytes alone make broken characters, too."""
    return TextGenerator(gpt(byte_level().size, pad=0, bos=0, eos=0), byte_level())


def own_completer() -> TextGenerator:
    return TextGenerator(gpt(tokenizer().size), tokenizer())


def gpt2_folder(folder: Path) -> Path:
    """A GPT-2 checkpoint in the hub's layout, with vocab.json and merges.txt."""
    config = GPTConfig(
        vocabulary=Vocabulary(size=byte_level().size, pad=0, bos=0, eos=0), embed_dim=16, num_heads=2, num_layers=2,
        max_length=40,
    )  # fmt: skip
    torch.manual_seed(7)
    write_hub(folder, *to_gpt2(GPT(config)))
    model = json.loads(byte_level()._subwords.to_str())["model"]
    (folder / "vocab.json").write_text(json.dumps(model["vocab"]))
    merges = [pair if isinstance(pair, str) else " ".join(pair) for pair in model["merges"]]
    (folder / "merges.txt").write_text("\n".join(["#version: 0.2", *merges]) + "\n")
    return folder
