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
from regard.lens.alignment import AXES, NAMES, Alignment
from regard.lens.text import printable
from regard.lens.view import Axis, HeatMap, LayerView, View, name_of_axes

NAMED_WORDS = 40  # of a text, in the list of texts
SINK = 0.3  # share of a head's weight from which a key is named as its sink
STEPS = 1000  # weights are written in thousandths
FAINT, MIDDLE, STRONG = 0.05, 0.54, 0.69  # a weight that is not written, and shares that change the ink: as in page.js


def page(views: Alignment | View | Sequence[Alignment | View], *, title: str | None = None) -> str:
    """One HTML file that shows attention, of any length: long inputs are bins.

    Args:
        views: what to show: of one text, or of several to choose from.
        title: of the page; that of the first view by default.

    Returns:
        The file's text. Nothing in words or title is taken for HTML or for a script.

    Raises:
        ConfigError: no view at all, or one without attention.
    """
    several = [views] if isinstance(views, Alignment | View) else list(views)
    each = [one.view() if isinstance(one, Alignment) else one for one in several]
    if not each or not all(one.layers for one in each):
        raise ConfigError("page: got 0 attentions; expected at least one, as `look` and `record` give")
    first = each[0].map()
    notes = [note for one in each for note in one.notes]
    parts = {
        "title": escape(printable(" ".join((title or each[0].title).split()))),
        "style": _part("page.css"),
        "script": _part("page.js"),
        "table": _table(first),
        "notes": "".join(f"<li>{escape(printable(note))}</li>" for note in notes),
        "most": _percent(first.weights.max()),
        "data": _data(each),
    }
    # in one go, so that a part may hold what looks like the place of another
    return re.sub(r"\{(\w+)\}", lambda match: parts[match[1]], _part("page.html"))


def _part(name: str) -> str:
    return files("regard.lens").joinpath(name).read_text(encoding="utf-8")


def _data(views: list[View]) -> str:
    """All maps and labels as JSON that no HTML parser takes for markup."""
    plain = json.dumps([_plain(view) for view in views], separators=(",", ":"))
    return plain.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def _plain(view: View) -> dict[str, Any]:
    kinds = {}
    for kind in view.kinds:
        layers = view.layers_of(kind)
        first = layers[0]
        words = [view.axes[first.rows].bins(first.row_edges), view.axes[first.columns].bins(first.column_edges)]
        kinds[kind] = {
            "name": NAMES.get(kind, name_of_axes(first)),
            "axes": AXES.get(kind, (first.rows, first.columns)),
            "words": [[printable(word) for word in side] for side in words],
            "layers": [_thousandths(layer.grid) for layer in layers],
            "facts": [
                [_facts(layer, head, view.axes[layer.columns]) for head in range(layer.num_heads)] for layer in layers
            ],
        }
    axis = view.axes.get("source") or next(iter(view.axes.values()))
    words = [printable(label) for i, label in enumerate(axis.labels) if i not in axis.special]
    return {"source": words[:NAMED_WORDS], "kinds": kinds}


def _facts(layer: LayerView, head: int, axis: Axis) -> str:
    """What is known of a head besides its map, in a line."""
    facts = []
    if layer.entropy is not None:
        facts.append(f"mean entropy {float(layer.entropy[head].mean()):.2f} nats")
    if layer.distance is not None and layer.rows == layer.columns:
        facts.append(f"mean distance {float(layer.distance[head].mean()):.1f} places back")
    if layer.key_mass is not None:
        shares = layer.key_mass[head] / max(float(layer.key_mass[head].sum()), 1e-9)
        place = int(shares.argmax())
        if float(shares[place]) > SINK:
            facts.append(f"sink: {float(shares[place]):.0%} of all weight on {axis.labels[place]!r}, place {place + 1}")
    if layer.error is not None:
        facts.append(f"error of the output {layer.error:.0e}")
    return "; ".join(facts)


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
