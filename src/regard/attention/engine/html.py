"""HTML of patterns and plans for notebooks, returned by their `_repr_html_`."""

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

CELLS = 32  # maximum cells along each side of a picture; larger patterns are averaged
PIXELS = 160  # longer side of a picture
MIN_SIZE, MAX_SIZE = 12, 512  # bounds on the queries and keys drawn for a pattern of unspecified size
MAX_PAIRS = 1 << 22  # (query, key) pairs evaluated for a picture


def pattern_html(pattern: Pattern) -> str:
    """Repr of a pattern, with a picture for a representative number of queries and keys."""
    sizes = _sizes(pattern)
    # A layout starts at position 0 on both sides; otherwise the last query has the last key's position, as in a call.
    start = 0 if any(hasattr(value, "layout") for value in _values(pattern)) else None
    picture = "" if sizes is None else _picture(pattern, *sizes, start, 0)
    return f"<div><code>{escape(repr(pattern))}</code>{picture}</div>"


def table_html(rows: Iterable[tuple[str, str]], pattern: Pattern, extent: tuple[int, int, int | Tensor, int]) -> str:
    """Table of names and texts, with a picture of the pattern of a call.

    Args:
        rows: names and texts.
        pattern: the pattern of the call.
        extent: number of queries, number of keys, query_start and key_start.

    Returns:
        HTML.
    """
    cells = "".join(
        f'<tr><th style="text-align:left">{escape(name)}</th><td style="text-align:left">{escape(text)}</td></tr>'
        for name, text in rows
    )
    return f"<div><table>{cells}</table>{_picture(pattern, *extent)}</div>"


def _picture(pattern: Pattern, queries: int, keys: int, query_start: int | Tensor | None, key_start: int) -> str:
    """Picture with a caption; empty if the pattern is too large or does not cover these positions."""
    if not 0 < queries * keys <= MAX_PAIRS:
        return ""
    fields = pattern.tensor_fields
    device = fields[0].tensor.device if fields else torch.device("cpu")
    query_BL, key_S = positions(queries, keys, query_start, key_start, device)
    try:
        pattern.check(None if isinstance(query_start, Tensor) else int(query_BL[0, 0]), queries, key_start, keys)
    except ShapeError:
        return ""
    visible = pattern.visible(query_BL, key_S)
    density = _cell_density(visible.reshape(-1, *visible.shape[-2:])[0].expand(queries, keys).float().cpu())
    return f"<div>{_svg(density)}<br><small>{queries} queries (down) x {keys} keys</small></div>"


def _cell_density(visible: Tensor) -> Tensor:
    """Fraction of visible pairs in each of at most CELLS x CELLS cells."""
    for dim in (0, 1):
        size = visible.shape[dim]
        cells = min(size, CELLS)
        edges = [i * size // cells for i in range(cells + 1)]
        visible = torch.stack([visible.narrow(dim, a, b - a).mean(dim) for a, b in pairwise(edges)], dim)
    return visible


def _svg(density: Tensor) -> str:
    """SVG with one square per cell, in the text color; adjacent cells of one shade are one rectangle."""
    rows, columns = density.shape
    scale = PIXELS / max(rows, columns)
    width, height = (round(n * scale) for n in (columns, rows))
    rectangles = "".join(
        f'<rect x="{start}" y="{row}" width="{stop - start}" height="1" fill-opacity="{shade:g}"/>'
        for row, line in enumerate(density.tolist())
        for start, stop, shade in _runs(line)
    )
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" viewBox="0 0 {columns} {rows}" '
        'preserveAspectRatio="none" fill="currentColor" shape-rendering="crispEdges" '
        f'style="outline:1px solid currentColor">{rectangles}</svg>'
    )


def _runs(line: list[float]) -> Iterator[tuple[int, int, float]]:
    """Start, stop and shade of each run of cells of one shade, except empty cells."""
    shades, start = [round(0.8 * density, 2) for density in line], 0
    for i in range(1, len(shades) + 1):
        if i == len(shades) or shades[i] != shades[start]:
            if shades[start]:
                yield start, i, shades[start]
            start = i


def _sizes(pattern: Pattern) -> tuple[int, int] | None:
    """Representative number of queries and keys; None if the tensors of the pattern have inconsistent lengths."""
    default = min(max(MIN_SIZE, 2 * max(_numbers(pattern), default=0)), MAX_SIZE)
    queries, keys = (set(_lengths(pattern, letter)) for letter in "LS")
    if len(queries) > 1 or len(keys) > 1:
        return None
    rows, columns = (next(iter(sizes), 0) for sizes in (queries, keys))
    return rows or columns or default, columns or rows or default


def _lengths(pattern: Pattern, letter: str) -> Iterator[int]:
    """Number of queries (L) or keys (S) of each tensor of a pattern."""
    for value in _values(pattern):
        layout = getattr(value, "layout", None)
        if isinstance(layout, Tensor):
            yield layout.shape[-2 if letter == "L" else -1] * value.block_size
    for field in pattern.tensor_fields:
        dim = axis(field.tensor, field.axes, letter)
        if dim is not None and field.tensor.shape[dim] > 1:
            yield field.tensor.shape[dim]


def _values(value: Value) -> Iterator[Any]:
    """The value and its nested values."""
    yield value
    for field in fields(value):  # type: ignore[arg-type]
        inner = getattr(value, field.name)
        if isinstance(inner, Value):
            yield from _values(inner)


def _numbers(pattern: Pattern) -> Iterator[int]:
    """Distances, positions and lengths in the fields of a pattern."""
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
