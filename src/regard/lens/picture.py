"""A heat map as a PNG or SVG file, drawn by matplotlib without its global state."""

import os
from pathlib import Path
from typing import Any

from regard.errors import ConfigError
from regard.lens.alignment import HeatMap
from regard.lens.text import printable

FORMATS = (".png", ".svg")
DOTS = 200  # per inch, of a PNG
CELL = 0.36  # all in inches: the side of a cell
BAR_GAP, BAR_WIDTH, BAR_HEIGHT = 0.45, 0.14, 2.4
TITLE_GAP = 0.15
INK, PAPER, LINE = "#1f2328", "#ffffff", "#d7dbe0"
LOW_TO_HIGH = ("#f3f6fa", "#c3dcf0", "#7fb8dd", "#3a87c2", "#135a9e", "#0a2f63")
# DejaVu Sans comes with matplotlib; the others have the letters that it lacks, where they are installed.
FONTS = (
    "DejaVu Sans", "Noto Sans CJK JP", "Noto Sans CJK SC", "WenQuanYi Zen Hei", "Hiragino Sans", "Microsoft YaHei",
    "Arial Unicode MS", "Noto Sans", "Noto Sans Arabic", "Noto Sans Devanagari", "Noto Sans Hebrew", "Noto Sans Thai",
)  # fmt: skip


def save(heat_map: HeatMap, path: str | os.PathLike[str]) -> None:
    """Write a heat map as a picture: words on both axes, their names, and a color bar.

    Args:
        heat_map: what to draw.
        path: of the file; its end says the format, .png or .svg.

    Raises:
        ConfigError: another format, or matplotlib is not installed.
    """
    suffix = Path(path).suffix.lower()
    if suffix not in FORMATS:
        raise ConfigError(f"picture: {os.fspath(path)!r} ends in {suffix!r}; expected {' or '.join(FORMATS)}")
    figure(heat_map).savefig(path, format=suffix[1:], dpi=DOTS, facecolor=PAPER, bbox_inches="tight", pad_inches=0.2)


def figure(heat_map: HeatMap) -> Any:
    """A heat map as a matplotlib Figure of its own, which no window and no pyplot know of.

    Args:
        heat_map: what to draw.

    Returns:
        The matplotlib Figure.

    Raises:
        ConfigError: matplotlib is not installed.
    """
    try:
        from matplotlib.colors import LinearSegmentedColormap
        from matplotlib.figure import Figure
        from matplotlib.font_manager import fontManager
    except ImportError as error:
        raise ConfigError("pictures need matplotlib; pip install regard[pictures]") from error

    installed = {font.name for font in fontManager.ttflist}
    # words are no formulas: a "$" is a dollar
    plain: dict[str, Any] = {
        "fontfamily": [name for name in FONTS if name in installed],
        "parse_math": False,
        "color": INK,
    }
    rows, columns = ([printable(word) for word in side] for side in (heat_map.rows, heat_map.columns))
    wide, high = len(columns) * CELL, len(rows) * CELL
    # the cells fill the figure, and the file is cut to what is drawn: labels stand outside of it
    drawn = Figure(figsize=(wide, high))
    axes = drawn.add_axes((0, 0, 1, 1))
    image = axes.imshow(
        heat_map.weights.detach().cpu().double().numpy(),
        cmap=LinearSegmentedColormap.from_list("regard", LOW_TO_HIGH),
        vmin=0.0,
        aspect="auto",
    )
    axes.set_xticks(range(len(columns)), columns, rotation=45, ha="left", rotation_mode="anchor", **plain)
    axes.set_yticks(range(len(rows)), rows, **plain)
    axes.xaxis.tick_top()
    axes.xaxis.set_label_position("top")
    axes.set_xlabel(heat_map.column_axis, labelpad=8, fontweight="bold", **plain)
    axes.set_ylabel(heat_map.row_axis, labelpad=8, fontweight="bold", **plain)
    axes.set_xticks([x - 0.5 for x in range(1, len(columns))], minor=True)
    axes.set_yticks([y - 0.5 for y in range(1, len(rows))], minor=True)
    axes.grid(which="minor", color=PAPER, linewidth=1.5)
    axes.tick_params(which="both", length=0)
    axes.spines[:].set_visible(False)
    tall = min(high, BAR_HEIGHT)
    bar_axes = drawn.add_axes((1 + BAR_GAP / wide, 1 - tall / high, BAR_WIDTH / wide, tall / high))
    bar = drawn.colorbar(image, cax=bar_axes)
    bar.set_label("attention weight", labelpad=8, **plain)
    bar.outline.set_visible(False)
    bar.ax.tick_params(color=LINE, labelcolor=INK, labelsize="small")
    drawn.text(0, -TITLE_GAP / high, heat_map.title, fontsize="small", va="top", **plain)
    return drawn
