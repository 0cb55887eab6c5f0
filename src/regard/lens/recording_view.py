"""View of a recording for pages and pictures, with labeled tokens as axes."""

import re
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from regard.errors import ConfigError
from regard.lens.attention_record import AttentionRecord
from regard.lens.view import Axis, LayerView, View

CROSS = re.compile(r"cross|encoder_attn|encdec", re.IGNORECASE)
DECODER = re.compile(r"decoder", re.IGNORECASE)
SOURCE, TARGET, TEXT = "source", "target", "text"
MARK = re.compile(r"<[^<>\s]*>|\[[A-Z]+\]")  # special token: </s>, [CLS], <|endoftext|>

Tokens = Sequence[str] | Mapping[str, Sequence[str]]


class Sides(NamedTuple):
    """The axes of an attention."""

    rows: str
    columns: str


def view_of(
    records: Mapping[str, AttentionRecord], tokens: Tokens | None = None, *, title: str = "", batch: int = 0,
    notes: Sequence[str] = (),
) -> View:  # fmt: skip
    """View of recorded attentions.

    Args:
        records: by path.
        tokens: the labels of the places that were read, in order; of an encoder and a decoder those of both, as
            {"source": [...], "target": [...]}. By default places are numbered.
        title: of the page.
        batch: the sequence, counted from 0.
        notes: lines for the reader.

    Returns:
        The maps of all attentions. One over a number of places that no label has gets an axis of numbers.

    Raises:
        ConfigError: an axis without attention: labels of another number than the places that were read.
    """
    labels = _labels(tokens)
    axes: dict[str, Axis] = {}
    layers: list[LayerView] = []
    for path, record in records.items():
        _, _, queries, keys = record.shape
        sides = _sides(path, both=SOURCE in labels)
        names = [_axis(axes, labels, name, size) for name, size in zip(sides, (queries, keys), strict=True)]
        layers.append(record.layer_view(*names, batch=batch))
    unused = [f"{name} ({len(x)})" for name, x in labels.items() if name not in axes]
    if unused:
        sizes = sorted({record.shape[2:] for record in records.values()})
        raise ConfigError(f"tokens of {', '.join(unused)} fit no attention; they are over queries x keys {sizes}")
    return View(title=title, axes=axes, layers=layers, notes=notes)


def _labels(tokens: Tokens | None) -> dict[str, list[str]]:
    if tokens is None:
        return {}
    if isinstance(tokens, Mapping):
        return {name: [str(token) for token in x] for name, x in tokens.items()}
    return {TEXT: [str(token) for token in tokens]}


def _sides(path: str, *, both: bool) -> Sides:
    """Which axes an attention has, by its path."""
    if not both:
        return Sides(TEXT, TEXT)
    if CROSS.search(path):
        return Sides(TARGET, SOURCE)
    return Sides(TARGET, TARGET) if DECODER.search(path) else Sides(SOURCE, SOURCE)


def _axis(axes: dict[str, Axis], labels: Mapping[str, Sequence[str]], name: str, size: int) -> str:
    """The name of an axis of a size: of the labels if there are so many, else of numbers."""
    known = labels.get(name)
    if known is None or len(known) != size:
        name = f"{size} places"
        known = [str(i) for i in range(size)]
    axes.setdefault(name, Axis(name=name, labels=known, special=special_places(known)))
    return name


def special_places(labels: Sequence[str]) -> frozenset[int]:
    """Places of special tokens among labels."""
    return frozenset(i for i, label in enumerate(labels) if MARK.fullmatch(label))
