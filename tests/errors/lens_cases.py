"""Misuses of the lens: see `cases.py`."""

import sys
from collections.abc import Callable
from unittest.mock import patch

import torch

import regard as rg
from regard.attention.summary import Summary
from regard.errors import ConfigError, ShapeError
from regard.lens.alignment import Alignment
from regard.lens.page import page
from regard.lens.picture import figure, save
from regard.lens.record import WEIGHTS, record
from regard.lens.terminal import draw


def seen(**changes: object) -> Alignment:
    weights = {"decoder.0.cross_attention": torch.full((3, 2, 2), 0.5)}
    return Alignment(**{"source": ["a", "[end]"], "target": ["x", "[end]"], "weights": weights, **changes})


def run(*batches: int, summary: Summary = WEIGHTS, asked: Summary | None = None) -> object:
    layer = rg.MultiHeadAttention(8, 2)
    with record(layer, summary) as found:
        for batch in batches:
            layer(torch.randn(batch, 3, 8), summary=asked)
    return found[""]


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
    ("record-nothing", lambda: record(torch.nn.Linear(2, 2)).__enter__(), ConfigError, "Linear has no attention"),
    (
        "record-asked",
        lambda: run(1, asked=Summary(entropy=True)),
        ConfigError,
        "record: MultiHeadAttention is asked for Summary(entropy=True) already",
    ),
    ("record-unused", lambda: run(), KeyError, "''"),  # the attention stands at the path "", and did not run
    ("record-batches", lambda: run(2, 5), ShapeError, "ran 2 times, and queries in batches of [2, 5] cannot be joined"),
    (
        "record-grids",
        lambda: run(1, 1, 1, summary=Summary(grid=(2, 2))),
        ShapeError,
        "ran 3 times, and grids of bins cannot be joined",
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
    ("page-nothing", lambda: page([]), ConfigError, "page: got 0 alignments"),
]
