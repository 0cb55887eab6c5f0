"""Attention as one HTML file that needs no network: maps of every layer and head, to look through and to hear.

The page is made from page.html, page.css and page.js beside this file. The mean of all layers and heads stands in it
as a table, so that it can be read without scripts too; the rest stands in it as JSON.
"""

import json
import re
from collections.abc import Sequence
from html import escape
from importlib.resources import files
from typing import Any

from torch import Tensor

from regard.errors import ConfigError
from regard.lens.alignment import AXES, END, NAMES, Alignment, HeatMap
from regard.lens.text import printable

STEPS = 1000  # weights are written in thousandths
FAINT, MIDDLE, STRONG = 0.05, 0.54, 0.69  # a weight that is not written, and shares that change the ink: as in page.js


def page(alignments: Alignment | Sequence[Alignment], *, title: str = "What the model attends to") -> str:
    """One HTML file that shows alignments.

    Args:
        alignments: of one sentence, or of several to choose from.
        title: of the page.

    Returns:
        The file's text. Nothing in words or title is taken for HTML or for a script.

    Raises:
        ConfigError: no alignment at all.
    """
    each = [alignments] if isinstance(alignments, Alignment) else list(alignments)
    if not each:
        raise ConfigError("page: got 0 alignments; expected at least one, as `look` gives")
    first = each[0].map(each[0].kinds[0])
    parts = {
        "title": escape(printable(" ".join(title.split()))),
        "style": _part("page.css"),
        "script": _part("page.js"),
        "table": _table(first),
        "most": _percent(first.weights.max()),
        "data": _data(each),
    }
    # in one go, so that a part may hold what looks like the place of another
    return re.sub(r"\{(\w+)\}", lambda found: parts[found[1]], _part("page.html"))


def _part(name: str) -> str:
    return files("regard.lens").joinpath(name).read_text(encoding="utf-8")


def _data(alignments: list[Alignment]) -> str:
    """All weights and words as JSON that no HTML parser takes for markup."""
    plain = json.dumps([_plain(alignment) for alignment in alignments], separators=(",", ":"))
    return plain.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def _plain(alignment: Alignment) -> dict[str, Any]:
    kinds = {
        kind: {
            "name": NAMES[kind],
            "axes": AXES[kind],
            "words": [[printable(word) for word in side] for side in alignment.words(kind)],
            "layers": [_thousandths(weights) for weights in alignment.layers(kind).values()],
        }
        for kind in alignment.kinds
    }
    return {"source": [printable(word) for word in alignment.source if word != END], "kinds": kinds}


def _thousandths(weights: Tensor) -> list[list[int]]:
    rounded: list[list[int]] = (weights.detach().double() * STEPS).round().int().flatten(1).tolist()
    return rounded


def _table(heat_map: HeatMap) -> str:
    """A map as an HTML table, as page.js makes it."""
    rows, columns = ([escape(printable(word)) for word in side] for side in (heat_map.rows, heat_map.columns))
    most = max(float(heat_map.weights.max()), 1e-9)
    head = "".join(f'<th scope="col"><span>{word}</span></th>' for word in columns)
    lines = [
        f'<tr><th scope="row"><span>{word}</span></th>{"".join(_cell(weight, most) for weight in weights)}</tr>'
        for word, weights in zip(rows, heat_map.weights.tolist(), strict=True)
    ]
    across = f'<th class="axis across" scope="colgroup" colspan="{len(columns)}">{heat_map.column_axis}</th>'
    return f"""<table><caption>{heat_map.title}, in percent</caption>
<thead><tr><td></td>{across}</tr>
<tr><th class="axis down">{heat_map.row_axis}</th>{head}</tr></thead>
<tbody>
{chr(10).join(lines)}
</tbody></table>"""


def _cell(weight: float, most: float) -> str:
    share = weight / most
    ink = "strong" if share > STRONG else "middle" if share > MIDDLE else ""
    kind = f' class="seen {ink}"' if weight >= FAINT else ""
    return f'<td{kind} style="--share: {share:.3f}">{100 * weight:.0f}</td>'


def _percent(weight: Tensor) -> str:
    return f"{100 * float(weight):.0f} %"
