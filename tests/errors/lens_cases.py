"""Misuses of the lens: see `cases.py`."""

import sys
import warnings
from collections.abc import Callable
from typing import Any
from unittest.mock import patch

import torch

import regard as rg
from regard.errors import ConfigError, ShapeError, UnsupportedError
from regard.lens.alignment import Alignment
from regard.lens.attention_record import AttentionRecord
from regard.lens.checkpoint import view_checkpoint
from regard.lens.page import page
from regard.lens.picture import figure, save
from regard.lens.record import record
from regard.lens.recording_view import view_of
from regard.lens.terminal import draw
from regard.lens.view import Axis


def seen(**changes: object) -> Alignment:
    weights = {"decoder.0.cross_attention": torch.full((3, 2, 2), 0.5)}
    return Alignment(**{"source": ["a", "[end]"], "target": ["x", "[end]"], "weights": weights, **changes})


def run(*batches: int, **settings: Any) -> AttentionRecord:
    layer = rg.MultiHeadAttention(8, 2)
    with warnings.catch_warnings(action="ignore"), record(layer, **settings) as recording:
        for batch in batches:
            layer(torch.randn(batch, 3, 8))
    return recording[""]


def without_a_library() -> object:
    with patch.dict(sys.modules, {"transformers": None}):
        return view_checkpoint("some/model", "a")


def without_matplotlib() -> object:
    with patch.dict(sys.modules, {"matplotlib.figure": None}):
        return figure(seen().map())


CASES: list[tuple[str, Callable[[], object], type[Exception], str]] = [
    (
        "alignment-numbers",
        lambda: seen(source_numbers=[0]),
        ShapeError,
        "Alignment: 1 numbers of 2 words; expected one of each",
    ),
    ("record-unused", lambda: run(), KeyError, "no attention '' was recorded"),
    (
        "record-batches",
        lambda: run(2, 5),
        ShapeError,
        "calls of (2, 2) and (5, 2) sequences and heads cannot be",
    ),
    ("record-grid", lambda: run(1, grid=0), ConfigError, "record: grid=0 must be an integer >= 1"),
    ("record-weights", lambda: run(1).weights, ConfigError, "were not kept; ask for them: weights=True"),
    ("record-gradient", lambda: run(1).output_grad, ConfigError, "ask for it with gradients=True, and call backward()"),
    ("record-head", lambda: run(1).head(2), ConfigError, "record: head=2 of ''; expected 0 to 1"),
    (
        "record-field",
        lambda: run(1).head(0).mass,
        AttributeError,
        "HeadRecord has no field 'mass'; it has grid",
    ),
    (
        "record-adapter",
        lambda: run(1, adapters={"attn": lambda *_: {}}),
        ConfigError,
        "record: no module 'attn' for an adapter",
    ),
    (
        "record-tokens",
        lambda: view_of({"": run(1)}, ["a", "b"]),
        ConfigError,
        "tokens of text (2) fit no attention; they are over queries x keys [(3, 3)]",
    ),
    ("see-checkpoint", without_a_library, UnsupportedError, "some/model: regard loads no such model, and"),
    (
        "view-special",
        lambda: Axis(name="text", labels=["a"], special=frozenset([1])),
        ConfigError,
        "Axis 'text': special=[1] must be places of 1 labels",
    ),
    (
        "alignment-shape",
        lambda: seen(target=["x", "y", "[end]"]),
        ShapeError,
        "decoder.0.cross_attention has weights of shape (3, 2, 2); expected (heads, 3, 2)",
    ),
    (
        "alignment-finite",
        lambda: seen(weights={"cross_attention": torch.full((3, 2, 2), torch.nan)}),
        ShapeError,
        "cross_attention has 12 weights that are not finite",
    ),
    (
        "alignment-path",
        lambda: seen(weights={"blocks.0.attention": torch.zeros(1, 2, 2)}),
        ConfigError,
        "'blocks.0.attention' has no kind; expected a path such as decoder.0.cross_attention",
    ),
    ("alignment-kind", lambda: seen().map("encodr"), ConfigError, "no kind 'encodr'; known: cross"),
    ("alignment-layer", lambda: seen().map(layer=0), ConfigError, "layer=0 is not one of the 1 there are"),
    ("alignment-head", lambda: seen().map(head=4), ConfigError, "head=4 is not one of the 3 there are; count from 1"),
    ("terminal-width", lambda: draw(seen().map(), columns=39), ConfigError, "columns=39 must be an integer >= 40"),
    ("picture-format", lambda: save(seen().map(), "seen.jpg"), ConfigError, "'seen.jpg' ends in '.jpg'; expected .png"),
    ("picture-matplotlib", without_matplotlib, ConfigError, "pip install regard[pictures]"),
    ("page-nothing", lambda: page([]), ConfigError, "page: got 0 attentions"),
]
