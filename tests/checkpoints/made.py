"""A tiny translator with random weights, and a tokenizer trained on a few sentences."""

import functools

import torch

from regard.data.tokenizer import Tokenizer
from regard.models.seq2seq import Vocabulary
from regard.models.transformer import Transformer, TransformerConfig
from regard.tasks.translate import Translator

SENTENCES = (
    "This package contains the documentation.",
    "Questo pacchetto contiene la documentazione.",
    "The library reads files, and writes them again.",
    "La libreria legge i file, e li scrive di nuovo.",
)


@functools.cache
def tokenizer() -> Tokenizer:
    return Tokenizer.train(SENTENCES, vocab_size=600)


def transformer(size: int | None = None) -> Transformer:
    """A model that no two calls make differently."""
    config = TransformerConfig(
        vocabulary=Vocabulary(size=size or tokenizer().size),
        embed_dim=16,
        num_heads=2,
        ffn_dim=32,
        encoder_layers=1,
        decoder_layers=1,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(7)
        return Transformer(config).eval()


def translator(max_tokens: int = 24, **more: float) -> Translator:
    return Translator(transformer(), tokenizer(), {"training": {"max_tokens": max_tokens, **more, "steps": 3}})
