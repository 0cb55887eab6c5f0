"""Small models, a tokenizer and an alignment to look at."""

from functools import lru_cache

import torch

from regard.data.tokenizer import Tokenizer
from regard.lens.alignment import END, Alignment
from regard.models.registry import build, config_from_plain
from regard.models.seq2seq import Seq2Seq

SOURCE, TARGET = "this package contains documentation", "questo pacchetto contiene la documentazione"
SIZES = {
    "transformer": {"embed_dim": 16, "num_heads": 2, "ffn_dim": 24, "encoder_layers": 1, "decoder_layers": 2},
    "rnn": {"embed_dim": 12, "hidden_dim": 16, "align_dim": 8},
    "luong": {"embed_dim": 12, "hidden_dim": 16, "num_layers": 1},
    "convs2s": {"embed_dim": 16, "hidden_dim": 16, "encoder_layers": 1, "decoder_layers": 2},
}
PATHS = {
    "transformer": [
        "encoder.0.self_attention",
        "decoder.0.self_attention",
        "decoder.0.cross_attention",
        "decoder.1.self_attention",
        "decoder.1.cross_attention",
    ],
    "rnn": ["cross_attention"],
    "luong": ["cross_attention"],
    "convs2s": ["decoder.0.cross_attention", "decoder.1.cross_attention"],
}


@lru_cache
def tokenizer() -> Tokenizer:
    """So few merges that words are of several pieces."""
    return Tokenizer.train([SOURCE, TARGET] * 3, vocab_size=540)


def model(name: str, **changes: object) -> Seq2Seq:
    torch.manual_seed(7)
    plain = {"vocabulary": {"size": tokenizer().size}, **SIZES[name], **changes}
    return build(config_from_plain(name, plain)).eval()


def alignment(source: str, target: str, *, layers: int = 2, heads: int = 3) -> Alignment:
    """Random weights between the words of two sentences, in all three kinds of attention."""
    torch.manual_seed(3)
    read, wrote = [*source.split(), END], [*target.split(), END]
    sizes = {"encoder.{}.self_attention": (read, read), "decoder.{}.self_attention": (wrote, wrote)}
    sizes["decoder.{}.cross_attention"] = (wrote, read)
    return Alignment(
        source=read,
        target=wrote,
        weights={
            path.format(i): torch.rand(heads, len(rows), len(columns)).softmax(-1)
            for path, (rows, columns) in sizes.items()
            for i in range(layers)
        },
    )
