"""Patterns and plans as HTML, for notebooks: `_repr_html_` of theirs shows it."""

from collections.abc import Iterable, Iterator
from dataclasses import fields
from html import escape
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

from regard.attention.patterns.pattern import Pattern, positions
from regard.attention.value import Value, axis
from regard.errors import ShapeError

CELLS = 32  # of a picture, on a side; what is larger is drawn as shares
PIXELS = 160  # the longer side of a picture
FEWEST, MOST = 12, 512  # queries and keys that a picture stands for, where the pattern says nothing of their number
PAIRS = 1 << 22  # of query and key that are looked at for a picture


def pattern_html(pattern: Pattern) -> str:
    """A pattern's expression, and a picture of it for numbers of queries and keys that show what it does."""
    sizes = _sizes(pattern)
    # A layout covers positions from 0 on, on both sides; else the last query stands on the last key, as in a call.
    start = 0 if any(hasattr(value, "layout") for value in _values(pattern)) else None
    picture = "" if sizes is None else _picture(pattern, *sizes, start, 0)
    return f"<div><code>{escape(repr(pattern))}</code>{picture}</div>"


def table_html(rows: Iterable[tuple[str, str]], pattern: Pattern, place: tuple[int, int, int | Tensor, int]) -> str:
    """Names and texts as a table, and a picture of a call's pattern.

    Args:
        rows: the names and texts.
        pattern: of the call.
        place: its numbers of queries and keys, and the positions of the first ones.

    Returns:
        The markup.
    """
    cells = "".join(
        f'<tr><th style="text-align:left">{escape(name)}</th><td style="text-align:left">{escape(text)}</td></tr>'
        for name, text in rows
    )
    return f"<div><table>{cells}</table>{_picture(pattern, *place)}</div>"


def _picture(pattern: Pattern, queries: int, keys: int, query_start: int | Tensor | None, key_start: int) -> str:
    """The picture with its sizes under it; empty where the pattern does not cover these positions, or is too large."""
    if not 0 < queries * keys <= PAIRS:
        return ""
    held = pattern.held
    device = held[0].tensor.device if held else torch.device("cpu")
    query_BL, key_S = positions(queries, keys, query_start, key_start, device)
    try:
        pattern.check(None if isinstance(query_start, Tensor) else int(query_BL[0, 0]), queries, key_start, keys)
    except ShapeError:
        return ""
    seen = pattern.visible(query_BL, key_S)
    shares = _shares(seen.reshape(-1, *seen.shape[-2:])[0].expand(queries, keys).float().cpu())
    return f"<div>{_svg(shares)}<br><small>{queries} queries (down) x {keys} keys</small></div>"


def _shares(seen: Tensor) -> Tensor:
    """The share of visible pairs in each cell: at most CELLS x CELLS."""
    for dim in (0, 1):
        size = seen.shape[dim]
        cells = min(size, CELLS)
        edges = [i * size // cells for i in range(cells + 1)]
        seen = torch.stack([seen.narrow(dim, a, b - a).mean(dim) for a, b in pairwise(edges)], dim)
    return seen


def _svg(shares: Tensor) -> str:
    """Cells as squares in the color of the text around; neighbors of one shade are one rectangle."""
    rows, columns = shares.shape
    scale = PIXELS / max(rows, columns)
    width, height = (round(n * scale) for n in (columns, rows))
    rectangles = "".join(
        f'<rect x="{start}" y="{row}" width="{stop - start}" height="1" fill-opacity="{shade:g}"/>'
        for row, line in enumerate(shares.tolist())
        for start, stop, shade in _runs(line)
    )
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" viewBox="0 0 {columns} {rows}" '
        'preserveAspectRatio="none" fill="currentColor" shape-rendering="crispEdges" '
        f'style="outline:1px solid currentColor">{rectangles}</svg>'
    )


def _runs(line: list[float]) -> Iterator[tuple[int, int, float]]:
    """Where cells of one shade start and stop, but for those of which nothing is visible."""
    shades, start = [round(0.8 * share, 2) for share in line], 0
    for i in range(1, len(shades) + 1):
        if i == len(shades) or shades[i] != shades[start]:
            if shades[start]:
                yield start, i, shades[start]
            start = i


def _sizes(pattern: Pattern) -> tuple[int, int] | None:
    """How many queries and keys show what a pattern does; None where what it holds cannot stand together."""
    usual = min(max(FEWEST, 2 * max(_numbers(pattern), default=0)), MOST)
    queries, keys = (set(_lengths(pattern, letter)) for letter in "LS")
    if len(queries) > 1 or len(keys) > 1:
        return None
    rows, columns = (next(iter(sizes), 0) for sizes in (queries, keys))
    return rows or columns or usual, columns or rows or usual


def _lengths(pattern: Pattern, letter: str) -> Iterator[int]:
    """How many queries (L) or keys (S) the tensors of a pattern are made for."""
    for value in _values(pattern):
        layout = getattr(value, "layout", None)
        if isinstance(layout, Tensor):
            yield layout.shape[-2 if letter == "L" else -1] * value.block_size
    for leaf in pattern.held:
        dim = axis(leaf.tensor, leaf.axes, letter)
        if dim is not None and leaf.tensor.shape[dim] > 1:
            yield leaf.tensor.shape[dim]


def _values(value: Value) -> Iterator[Any]:
    """The value and those inside it."""
    yield value
    for field in fields(value):  # type: ignore[arg-type]
        inner = getattr(value, field.name)
        if isinstance(inner, Value):
            yield from _values(inner)


def _numbers(pattern: Pattern) -> Iterator[int]:
    """What distances, positions and lengths a pattern speaks of."""
    for value in _values(pattern):
        dilation = getattr(value, "dilation", 1)
        for field in fields(value):
            x = getattr(value, field.name)
            if isinstance(x, int) and field.name != "seed":
                yield x * dilation
            elif isinstance(x, tuple) and x:
                yield max(x)
            elif isinstance(x, Tensor) and field.metadata["axes"] == "B" and x.numel():
                yield int(x.max())
