"""Attention as one HTML file that needs no network: every layer, head and word, to look through and to hear.

The page is page.html of the folder web, with its styles and scripts, and the views as npz files in base64, which the
scripts read as they read a file that a reader opens. Without scripts it shows the mean of all layers and heads.
"""

import base64
import re
from collections.abc import Sequence
from dataclasses import replace
from html import escape
from importlib.resources import files

import torch
from torch import Tensor

from regard.errors import ConfigError
from regard.lens.alignment import Alignment
from regard.lens.files import npz
from regard.lens.notebook import table
from regard.lens.text import printable
from regard.lens.view import LayerView, View

SCRIPTS = ("data.js", "colors.js", "maps.js", "panels.js", "overview.js", "heatmap.js", "attributions.js", "page.js")
CELLS = 2_000_000  # of all maps of a view, at most: bins join in pairs until they fit
TOP, TOP_OF_ALL = 5, 1_500_000  # largest weights of a query, and of all queries of a view, at most
SUMMARIZED = 1_500_000  # queries of all heads that have summaries of their own; of more there are means
LEAST_MASS = 1e-3  # share of a head's weight that a key is known by, where there are means


def page(views: Alignment | View | Sequence[Alignment | View], *, title: str | None = None) -> str:
    """Attention as one HTML file; long inputs are shown in bins.

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
    parts = {
        "title": escape(printable(" ".join((title or each[0].title).split()))),
        "style": _part("page.css"),
        "script": "\n".join(map(_part, SCRIPTS)),
        "table": table(each[0].map()),
        "data": "\n".join(_data(view) for view in each),
    }
    # in one go, so that a part may hold what looks like the place of another
    return re.sub(r"\{(\w+)\}", lambda match: parts[match[1]], _part("page.html"))


def _part(name: str) -> str:
    return (files("regard.lens") / "web" / name).read_text(encoding="utf-8")


def _data(view: View) -> str:
    data = base64.b64encode(npz(fitting(view), compact=True)).decode()
    return f'<script type="application/octet-stream" class="view">{data}</script>'


def fitting(view: View) -> View:
    """A view as a page holds it: printable labels, and bins, largest weights and summaries no more than fit."""
    axes = {name: replace(axis, labels=[printable(label) for label in axis.labels]) for name, axis in view.axes.items()}
    layers = list(view.layers)
    while sum(layer.grid.numel() for layer in layers) > CELLS:
        largest = max(layer.grid[0].numel() for layer in layers)
        layers = [_halved(layer) if layer.grid[0].numel() == largest else layer for layer in layers]
    queries = sum(layer.entropy.numel() for layer in layers if layer.entropy is not None)
    top = min(TOP, max(1, TOP_OF_ALL // max(1, queries)))
    layers = [_with_top(layer, top) for layer in layers]
    if queries > SUMMARIZED:
        layers = [_with_means(layer) for layer in layers]
    return replace(view, axes=axes, layers=layers)


def _halved(layer: LayerView) -> LayerView:
    """A layer with bins joined in pairs: sums over keys, means over queries."""
    rows, columns = ([*edges[:-1:2], edges[-1]] for edges in (layer.row_edges, layer.column_edges))
    heights = torch.tensor(list(layer.row_edges)).diff()[:, None]
    sums = _pairs(_pairs((layer.grid * heights).mT).mT)
    return replace(layer, grid=sums / torch.tensor(rows).diff()[:, None], row_edges=rows, column_edges=columns)


def _pairs(x: Tensor) -> Tensor:
    """Sums of pairs along the last axis; the last may stand alone."""
    even: Tensor = torch.nn.functional.pad(x, (0, x.shape[-1] % 2))
    return even.unflatten(-1, (-1, 2)).sum(-1)


def _with_top(layer: LayerView, top: int) -> LayerView:
    if layer.top_keys is None or layer.top_weights is None:
        return layer
    return replace(layer, top_keys=layer.top_keys[..., :top], top_weights=layer.top_weights[..., :top])


def _with_means(layer: LayerView) -> LayerView:
    """A layer with the means of entropy and distance, and the mass of large keys alone, as zeros take no room."""
    entropy, distance = (None if x is None else x.mean(1, keepdim=True) for x in (layer.entropy, layer.distance))
    mass = layer.key_mass
    if mass is not None:
        mass = mass.where(mass > LEAST_MASS * mass.sum(1, keepdim=True), 0)
    top_keys, top_weights = (None if x is None else x[..., :0] for x in (layer.top_keys, layer.top_weights))
    return replace(layer, entropy=entropy, distance=distance, key_mass=mass, top_keys=top_keys, top_weights=top_weights)
