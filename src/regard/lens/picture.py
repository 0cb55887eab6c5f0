"""A heat map as a PNG or SVG file, drawn by matplotlib without its global state.

A picture has a greatest size: cells shrink as words become more, then some words go without a name, then several words
share a cell.
"""

import math
import os
import warnings
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from regard.errors import ConfigError, nearest
from regard.lens.alignment import merged
from regard.lens.fonts import covering, missing
from regard.lens.text import printable, shortened
from regard.lens.view import HeatMap

FORMATS = (".png", ".svg")
MOST_PIXELS = 4000  # of a PNG's side
MOST_CELLS = 1000  # of a side
DOTS = 200  # per inch, of a PNG, where that is not too many pixels
POINTS = 72  # per inch
FONT, LEAST_FONT = 10.0, 4.0  # in points; a word that would be smaller is left out
FONT_SHARE = 0.8  # of a cell's side
LONGEST_LABEL = 40  # columns of a terminal
LEAST_CELL_OF_GRID = 4.0  # in points: smaller cells stand without lines between them
CELL, CELLS = 0.36, 16.0  # all in inches: the side of a cell, and the most that all cells of a side take
PAD = 0.2  # around the picture
BAR_GAP, BAR_WIDTH, BAR_HEIGHT = 0.45, 0.14, 2.4
TITLE_GAP = 0.15
INK, PAPER, LINE = "#1f2328", "#ffffff", "#d7dbe0"
BLUE = ("#f3f6fa", "#c3dcf0", "#7fb8dd", "#3a87c2", "#135a9e", "#0a2f63")
TICKS = (0.0, 0.01, 0.1, 0.25, 0.5, 1.0)  # of the color bar
COLORS = ("blue", "cividis")


def save(heat_map: HeatMap, path: str | os.PathLike[str], *, colors: str = "blue") -> None:
    """Write a heat map as a picture: words on both axes, their names, and a color bar.

    Args:
        heat_map: what to draw.
        path: of the file; its end says the format, .png or .svg.
        colors: "blue" or "cividis".

    A PNG has at most 4,000 pixels a side; `simplified` says what is left out for that. A warning names characters that
    no installed font has.

    Raises:
        ConfigError: another format or other colors, or matplotlib is not installed.
    """
    suffix = Path(path).suffix.lower()
    if suffix not in FORMATS:
        raise ConfigError(f"picture: {os.fspath(path)!r} ends in {suffix!r}; expected {' or '.join(FORMATS)}")
    drawn = figure(heat_map, colors=colors)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph")
        box = drawn.get_tightbbox().padded(PAD)  # in inches
        dots = min(DOTS, (MOST_PIXELS - 1) / max(box.size))
        drawn.savefig(path, format=suffix[1:], dpi=dots, facecolor=PAPER, bbox_inches=box)
    if left := missing([*heat_map.rows, *heat_map.columns]):
        warnings.warn(f"picture: {left}", stacklevel=2)


def simplified(heat_map: HeatMap) -> str:
    """Description of the simplification of a large map in a picture.

    Args:
        heat_map: what to draw.

    Returns:
        Such as "2 x 2 words a cell; 1 cell in 4 is named"; empty if nothing is left out.
    """
    binned = _binned(heat_map)
    sides = zip((heat_map.rows, heat_map.columns), (binned.rows, binned.columns), strict=True)
    down, across = (math.ceil(len(words) / len(cells)) for words, cells in sides)
    step = _label_step(binned)
    left_out = [f"{down} x {across} words a cell"] if max(down, across) > 1 else []
    left_out += [f"1 cell in {step} is named"] if step > 1 else []
    return "; ".join(left_out)


def figure(heat_map: HeatMap, *, colors: str = "blue") -> Any:
    """Heat map as a matplotlib Figure that is not registered with pyplot.

    Args:
        heat_map: what to draw; see `simplified` for large ones.
        colors: "blue" or "cividis"; they go with the square root of the weight, from 0 to 1 in every picture.

    Returns:
        The matplotlib Figure.

    Raises:
        ConfigError: other colors, or matplotlib is not installed.
    """
    if colors not in COLORS:
        raise ConfigError(f"picture: colors={colors!r}; {nearest(colors, list(COLORS))}")
    try:
        from matplotlib.colors import LinearSegmentedColormap, PowerNorm
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ConfigError("pictures need matplotlib; pip install regard[pictures]") from error

    families, _ = covering([*heat_map.rows, *heat_map.columns])
    # words are no formulas: a "$" is a dollar
    plain: dict[str, Any] = {"fontfamily": families, "parse_math": False, "color": INK}
    title = "; ".join(filter(None, (heat_map.title, simplified(heat_map))))
    heat_map = _binned(heat_map)
    rows, columns = (
        [shortened(printable(word), LONGEST_LABEL) for word in x] for x in (heat_map.rows, heat_map.columns)
    )
    cell, step = _cell(heat_map), _label_step(heat_map)
    wide, high = len(columns) * cell, len(rows) * cell
    labels = {**plain, "fontsize": min(FONT, max(LEAST_FONT, FONT_SHARE * cell * POINTS))}
    # the cells fill the figure and labels lie outside; the file is cropped to everything drawn
    drawn = Figure(figsize=(wide, high))
    axes = drawn.add_axes((0, 0, 1, 1))
    image = axes.imshow(
        heat_map.weights.detach().cpu().float().numpy(),
        cmap=LinearSegmentedColormap.from_list("blue", BLUE) if colors == "blue" else colors,
        norm=PowerNorm(0.5, vmin=0.0, vmax=1.0),
        aspect="auto",
        interpolation="nearest",
    )
    across, down = (range(0, len(words), step) for words in (columns, rows))
    axes.set_xticks(across, columns[::step], rotation=45, ha="left", rotation_mode="anchor", **labels)
    axes.set_yticks(down, rows[::step], **labels)
    axes.xaxis.tick_top()
    axes.xaxis.set_label_position("top")
    bold = {**plain, "fontfamily": families[:1], "fontweight": "bold"}  # of others there may be no bold font
    axes.set_xlabel(heat_map.column_axis, labelpad=8, **bold)
    axes.set_ylabel(heat_map.row_axis, labelpad=8, **bold)
    if cell * POINTS >= LEAST_CELL_OF_GRID:
        lines = {"colors": PAPER, "linewidths": 1.5 * cell / CELL}
        axes.vlines([x - 0.5 for x in range(1, len(columns))], -0.5, len(rows) - 0.5, **lines)
        axes.hlines([y - 0.5 for y in range(1, len(rows))], -0.5, len(columns) - 0.5, **lines)
    axes.tick_params(which="both", length=0)
    axes.spines[:].set_visible(False)
    tall = min(high, BAR_HEIGHT)
    bar_axes = drawn.add_axes((1 + BAR_GAP / wide, 1 - tall / high, BAR_WIDTH / wide, tall / high))
    bar = drawn.colorbar(image, cax=bar_axes, ticks=TICKS, format=lambda weight, _: f"{weight:.0%}")
    bar.set_label("attention weight", labelpad=8, **plain)
    bar.outline.set_visible(False)
    bar.ax.tick_params(color=LINE, labelcolor=INK, labelsize="small")
    drawn.text(0, -TITLE_GAP / high, title, fontsize="small", va="top", **plain)
    return drawn


def _binned(heat_map: HeatMap) -> HeatMap:
    """The map with at most `MOST_CELLS` cells a side: a bin of words gets their sum, and gives their mean."""
    bins = [_bins(len(words)) for words in (heat_map.rows, heat_map.columns)]
    if all(len(cells) == len(words) for cells, words in zip(bins, (heat_map.rows, heat_map.columns), strict=True)):
        return heat_map
    rows, columns = bins
    return replace(
        heat_map,
        rows=[heat_map.rows[cell.start] for cell in rows],
        columns=[heat_map.columns[cell.start] for cell in columns],
        weights=merged(heat_map.weights, rows, columns),
    )


def _bins(words: int) -> Sequence[range]:
    size = math.ceil(words / MOST_CELLS)
    return [range(start, min(start + size, words)) for start in range(0, words, size)]


def _cell(heat_map: HeatMap) -> float:
    """The side of a cell in inches."""
    return min(CELL, CELLS / max(len(heat_map.rows), len(heat_map.columns)))


def _label_step(heat_map: HeatMap) -> int:
    """Every how many cells a word is named: as often as the names have room."""
    return math.ceil(LEAST_FONT / (FONT_SHARE * _cell(heat_map) * POINTS))
