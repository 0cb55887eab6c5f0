"""Arguments of other libraries: see `cases.py`."""

from collections.abc import Callable
from typing import Any

import torch

import regard as rg
from regard.errors import ConfigError

QUERY = torch.zeros(2, 4, 5, 8)
STATES = torch.zeros(2, 5, 8)
MASK = torch.ones(5, 5, dtype=torch.bool)
LAYER = rg.MultiHeadAttention(8, 2)


def attend(**options: Any) -> Callable[[], object]:
    return lambda: rg.attend(QUERY, QUERY, QUERY, **options)


def call(**options: Any) -> Callable[[], object]:
    return lambda: LAYER(STATES, **options)


def layer(**options: Any) -> Callable[[], object]:
    return lambda: rg.MultiHeadAttention(8, 2, **options)


TEXTS = [
    (
        "booleans",
        attend(attn_mask=MASK),
        "attend has no argument attn_mask=Tensor(torch.bool, (5, 5)): for booleans write ",
    ),
    ("polarity", attend(attn_mask=MASK), "pattern=rg.Mask(mask) where True = may attend, or rg.Mask.from_hidden(mask)"),
    ("floats", attend(attn_mask=MASK.float()), "(5, 5)): for floats that are added to the scores write bias=mask"),
    (
        "no-mask",
        attend(attn_mask=None),
        "attn_mask=None: for booleans write pattern=rg.Mask(mask) where True = may attend",
    ),
    (
        "causal",
        attend(is_causal=True),
        "is_causal=True: write pattern=rg.Causal(), which aligns the last query with the last",
    ),
    ("dropout", attend(dropout_p=0.1), "dropout_p=0.1: write dropout=p; there is no training flag, so give 0.0 in"),
    ("groups", attend(enable_gqa=True), "enable_gqa=True: leave it out; grouped heads follow from the shapes"),
    ("scale", attend(scale=0.5), "scale=0.5: write score=rg.Dot(scale=...)"),
    (
        "padding",
        attend(key_padding_mask=MASK),
        "that is True for padding, pattern=rg.Mask.from_hidden(mask[:, None, None])",
    ),
    (
        "typo",
        attend(normaliser=rg.Sparsemax()),
        "attend has no argument 'normaliser'; did you mean 'normalizer'? Known: query",
    ),
    (
        "plan",
        lambda: rg.plan(QUERY, QUERY, QUERY, window_size=(3, 0)),
        "plan has no argument window_size=(3, 0): write ",
    ),
    (
        "call-weights",
        call(need_weights=True),
        "need_weights=True: write summary=rg.Summary(weights=True), which returns (",
    ),
    (
        "call-mask",
        call(attn_mask=MASK),
        "MultiHeadAttention has no argument attn_mask=Tensor(torch.bool, (5, 5)): for bool",
    ),
    (
        "call-padding",
        call(key_padding_mask=MASK),
        "write pattern=rg.KeyLengths(lengths) for padding at the end, or, of a ",
    ),
    ("call-score", call(score=rg.Dot()), "it is a setting of the layer; write MultiHeadAttention(..., score=...)"),
    (
        "call-typo",
        call(patern=rg.Causal()),
        "no argument 'patern'; did you mean 'pattern'? Known: query, key, value, patt",
    ),
    (
        "layer-batch-first",
        layer(batch_first=True),
        "batch_first=True: leave it out; inputs are (batch, length, embed_dim)",
    ),
    ("layer-kdim", layer(kdim=3), "MultiHeadAttention has no argument kdim=3: write key_dim=..."),
    ("layer-bias-kv", layer(add_bias_kv=True), "add_bias_kv=True: write normalizer=rg.LearnedSink() in a layer"),
    (
        "layer-typo",
        layer(postions=None),
        "no argument 'postions'; did you mean 'positions'? Known: embed_dim, num_heads",
    ),
]
CASES = [(f"foreign-{name}", run, ConfigError, text) for name, run, text in TEXTS]
