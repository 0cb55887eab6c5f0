"""A heat map as text: the target's words down, the source's words across, darker or brighter for more weight."""

import os
import shutil
import sys
import textwrap
from itertools import zip_longest

from regard.attention.check import check_integer
from regard.attention.engine.draw import SHADES
from regard.lens.text import printable, shortened, width
from regard.lens.view import HeatMap

# Cells in color: (background, foreground) of xterm's 256 colors, from dark to bright.
COLORS = ((235, 245), (23, 252), (30, 255), (37, 16), (79, 16), (158, 16))
PLAIN = 80  # columns where there is no terminal
NARROWEST = 40  # columns that a map needs
LABEL = 0.3  # of the width, at most, for the words at the left
NARROW_CELL = 2  # columns
TALLEST = 16  # letters of a word that stand one under the other
LEAST_SHOWN = 0.005  # the least weight that is written as a number


def draw(heat_map: HeatMap, *, columns: int | None = None, color: bool | None = None) -> str:
    """A heat map for the terminal.

    The words across stand in one line, as a sentence, where they fit; where not, their letters stand one under the
    other; where these do not fit either, the map is cut into parts that stand one under the other.

    Args:
        heat_map: what to draw.
        columns: how wide it may be, at least 40; as wide as the terminal by default.
        color: whether to write color codes, with the weights in percent; by default, if standard output is a terminal
            and the variable NO_COLOR is not set. Without color, cells are shaded: · ░ ▒ ▓ █.

    Returns:
        Lines, without the end of the last one.

    Raises:
        ConfigError: a width below 40.
    """
    if columns is None:
        columns = max(shutil.get_terminal_size((PLAIN, 0)).columns, NARROWEST)
    check_integer("draw", "columns", columns, NARROWEST)
    color = has_color() if color is None else color
    rows, words = ([printable(word) for word in side] for side in (heat_map.rows, heat_map.columns))
    label = min(max(map(width, [*rows, heat_map.row_axis])), int(columns * LABEL))
    room = columns - label - 1
    cells = [max(width(word), 3) + 1 for word in words]  # 3: for a number
    wide = sum(cells) <= room
    cells = cells if wide else [NARROW_CELL] * len(words)
    weights = heat_map.weights.detach().double().tolist()
    max_weight = max(max(map(max, weights)), 1e-9)
    title = f"{heat_map.title}: {heat_map.column_axis} words across, {heat_map.row_axis} words down"
    lines = textwrap.wrap(title, columns)
    for part in _parts(cells, room):
        lines += _header(words[part], cells[part], label, wide=wide)
        for word, row in zip(rows, weights, strict=True):
            shown = [_cell(w, max_weight, size, color=color) for w, size in zip(row[part], cells[part], strict=True)]
            lines.append(f"{_padded(shortened(word, label), label)} {''.join(shown)}".rstrip())
        lines.append("")
    return "\n".join([*lines, _bar(max_weight, color=color)])


def has_color() -> bool:
    """Whether standard output is a terminal that shows colors."""
    return sys.stdout.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


def _parts(cells: list[int], room: int) -> list[slice]:
    """The columns of the map, cut where the room ends."""
    starts, used = [0], 0
    for i, cell in enumerate(cells):
        if used + cell > room:
            starts.append(i)
            used = 0
        used += cell
    return [slice(*ends) for ends in zip(starts, [*starts[1:], len(cells)], strict=True)]


def _header(words: list[str], cells: list[int], label: int, *, wide: bool) -> list[str]:
    """The words across: in one line, or letter under letter, ending just above their cells."""
    if wide:
        lines = ["".join(_padded(word, cell) for word, cell in zip(words, cells, strict=True))]
    else:
        upward = zip_longest(*(reversed(_letters(shortened(word, TALLEST))) for word in words), fillvalue=" ")
        lines = ["".join(_padded(letter, NARROW_CELL) for letter in line) for line in upward][::-1]
    return [f"{' ' * label} {line}".rstrip() for line in lines]


def _letters(word: str) -> list[str]:
    """The characters of a word, each with the marks that stand on it."""
    letters: list[str] = []
    for c in word:
        if letters and width(c) == 0:
            letters[-1] += c
        else:
            letters.append(c)
    return letters


def _cell(weight: float, max_weight: float, size: int, *, color: bool) -> str:
    """One weight, `size` columns wide; the last column parts it from the next, but in narrow cells."""
    filled = size if size == NARROW_CELL else size - 1
    percent = f"{100 * weight:.0f}" if size > NARROW_CELL and weight >= LEAST_SHOWN else ""
    return _shade(weight / max_weight, percent.center(filled), color=color) + " " * (size - filled)


def _shade(share: float, text: str, *, color: bool) -> str:
    """Columns that are as dark or bright as a share of the largest weight; without color they hide the text."""
    if not color:
        return SHADES[round(share * (len(SHADES) - 1))] * len(text)
    background, foreground = COLORS[round(share * (len(COLORS) - 1))]
    return f"\033[48;5;{background};38;5;{foreground}m{text}\033[0m"


def _bar(max_weight: float, *, color: bool) -> str:
    """Legend of the shades."""
    steps = len(COLORS if color else SHADES) - 1
    shades = "".join(_shade(i / steps, "  ", color=color) for i in range(steps + 1))
    return f"attention weight 0% {shades} {max_weight:.0%}"


def _padded(word: str, columns: int) -> str:
    return word + " " * (columns - width(word))
