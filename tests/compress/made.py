"""A small translator whose weights are large enough for int8, with random weights."""

import torch

from regard.models.seq2seq import Vocabulary
from regard.models.transformer import Transformer, TransformerConfig
from regard.tasks.translate import Translator
from tests.checkpoints.made import tokenizer

RECORDS = [
    ("This package contains the documentation.", "Questo pacchetto contiene la documentazione."),
    ("The library reads files, and writes them again.", "La libreria legge i file, e li scrive di nuovo."),
] * 8


def transformer() -> Transformer:
    config = TransformerConfig(
        vocabulary=Vocabulary(size=tokenizer().size), embed_dim=64, num_heads=1, ffn_dim=96, encoder_layers=2,
        decoder_layers=2,
    )  # fmt: skip
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(7)
        return Transformer(config).eval()


def translator() -> Translator:
    return Translator(transformer(), tokenizer(), {"training": {"max_tokens": 24, "steps": 3}})
