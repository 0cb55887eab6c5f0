"""Misuse of the Transformer, of its parts, and of attention as plain data: see `cases.py`."""

from collections.abc import Callable
from typing import Any

import torch

import regard as rg
from regard.errors import CheckpointError, ConfigError, ShapeError, UnsupportedError
from regard.layers.attention_config import AttentionConfig
from regard.layers.dropout import Dropout
from regard.layers.transformer_layer import FeedForward, GatedFeedForward, Residual
from regard.models.marian import from_marian, to_marian
from regard.models.transformer import Transformer, TransformerConfig


def config(**changes: Any) -> TransformerConfig:
    sizes = {"embed_dim": 4, "num_heads": 2, "ffn_dim": 4, "encoder_layers": 1, "decoder_layers": 1}
    return TransformerConfig(vocabulary=rg.Vocabulary(size=9), **{**sizes, **changes})


def plain(**parts: Any) -> Callable[[], object]:
    return lambda: AttentionConfig.from_plain(parts)


def marian(**changes: Any) -> object:
    fields, state = to_marian(Transformer(config()))
    return from_marian({**fields, **changes}, state)


def marian_without(name: str) -> object:
    fields, state = to_marian(Transformer(config()))
    return from_marian(fields, {key: x for key, x in state.items() if key != name})


IDS = torch.ones(2, 3, dtype=torch.int64)

CASES: list[tuple[str, Callable[[], object], type[Exception], str]] = [
    ("config-field", lambda: config(norm="middle"), ConfigError, "unknown norm 'middle'; known: post, pre"),
    ("config-size", lambda: config(embed_dim=0), ConfigError, "TransformerConfig: embed_dim=0 must be an integer >= 1"),
    (
        "size-name",
        lambda: TransformerConfig.from_preset("smal", rg.Vocabulary(size=9)),
        ConfigError,
        "transformer has no size 'smal'; did you mean 'small'?",
    ),
    ("activation", lambda: FeedForward(4, 4, "rellu"), ConfigError, "unknown activation 'rellu'; did you mean 'relu'?"),
    ("gated-activation", lambda: GatedFeedForward(4, 4, "swis"), ConfigError, "'swis'; did you mean 'swish'?"),
    ("norm", lambda: Residual(4, "before", 0.0), ConfigError, "norm='before'; expected \"post\""),
    ("dropout-layer", lambda: Dropout(1.0), ConfigError, "Dropout: p=1.0 must be a probability"),
    (
        "transformer-tokens",
        lambda: Transformer(config())(IDS.float(), None, IDS),
        ShapeError,
        "expected token ids, integers of shape (batch, length)",
    ),
    (
        "transformer-rows",
        lambda: Transformer(config())(IDS[:1], None, IDS),
        ShapeError,
        "inputs has 1 rows and targets has 2; expected the same number",
    ),
    # attention as plain data
    (
        "attention-value",
        lambda: AttentionConfig(score=rg.Entmax(1.5)),
        ConfigError,
        "attention.score=Entmax(alpha=1.5) is not a Score; known: dot, cosine",
    ),
    ("attention-part", plain(normaliser="softmax"), ConfigError, "no part 'normaliser'; did you mean 'normalizer'?"),
    ("attention-kind", plain(normalizer="entmx"), ConfigError, "unknown kind 'entmx'; did you mean 'entmax'?"),
    ("attention-no-kind", plain(normalizer=["entmax"]), ConfigError, "attention.normalizer=['entmax'] must be a kind"),
    (
        "attention-setting",
        plain(normalizer={"kind": "entmax", "alpa": 1.5}),
        ConfigError,
        "entmax has no setting 'alpa'; did you mean 'alpha'?",
    ),
    ("attention-needs", plain(normalizer="entmax"), ConfigError, "attention.normalizer: entmax needs alpha; got {}"),
    (
        "attention-to-plain",
        lambda: AttentionConfig(pattern=rg.Causal() & rg.SlidingWindow(left=2)).to_plain(),
        ConfigError,
        "attention.pattern=Causal() & SlidingWindow(left=2) cannot be written as plain data",
    ),
    # Marian
    ("marian-field", lambda: marian(normalize_before=True), UnsupportedError, "Marian: normalize_before=True is not"),
    (
        "marian-two",
        lambda: marian(decoder_ffn_dim=5),
        UnsupportedError,
        "decoder_ffn_dim=5 differs from encoder_ffn_dim=4",
    ),
    (
        "marian-tensor",
        lambda: marian_without("model.encoder.layers.0.fc1.bias"),
        CheckpointError,
        "Marian: the tensors do not match the configuration: missing: model.encoder.layers.0.fc1.bias",
    ),
    ("marian-norm", lambda: to_marian(Transformer(config(norm="pre"))), UnsupportedError, "Marian has no norm='pre'"),
    (
        "marian-attention",
        lambda: to_marian(Transformer(config(attention=AttentionConfig(normalizer=rg.Sparsemax())))),
        UnsupportedError,
        "default attention of a Transformer; this model has AttentionConfig(normalizer=Sparsemax())",
    ),
]
