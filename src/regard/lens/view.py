"""View of attention for pages and pictures: labeled axes, and binned maps of layers and heads over them.

Layout: H heads, L queries, S keys, r and c bins of queries and keys, k largest weights of a query.
"""

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, final

import torch
from torch import Tensor

from regard.errors import ConfigError, ShapeError, nearest

if TYPE_CHECKING:
    from regard.lens.notebook import Frame


@final
@dataclass(frozen=True, kw_only=True)
class Axis:
    """A list of labeled places in one input of a model: words, tokens; later frames of sound, patches of a picture.

    Args:
        name: what the places are, as "text", "source", "target".
        labels: one a place, in order.
        special: places of tokens that are no words: start, end, padding.
        kind: what a page draws the places with: the name of a panel in web/panels.js.
    """

    name: str
    labels: Sequence[str]
    special: frozenset[int] = frozenset()
    kind: str = "words"

    def __post_init__(self) -> None:
        if any(not 0 <= place < len(self.labels) for place in self.special):
            raise ConfigError(
                f"Axis {self.name!r}: special={sorted(self.special)} must be places of {len(self)} labels"
            )

    def __len__(self) -> int:
        return len(self.labels)

    def bins(self, edges: Sequence[int]) -> list[str]:
        """A label for each bin: that of its place, or of its first and last place."""
        pairs = itertools.pairwise(edges)
        return [
            self.labels[start] if stop - start == 1 else f"{self.labels[start]} … {self.labels[stop - 1]}"
            for start, stop in pairs
        ]


@final
@dataclass(frozen=True, kw_only=True, eq=False)
class HeatMap:
    """One map of weights with words on its axes: what every view draws.

    Args:
        rows, columns: the words that attend, and those attended to.
        row_axis, column_axis: what the words are, "source", "target" or "text".
        weights: (rows, columns).
        title: what the map shows.
    """

    rows: Sequence[str]
    columns: Sequence[str]
    row_axis: str
    column_axis: str
    weights: Tensor
    title: str

    def _repr_html_(self) -> str:
        """As notebooks show it."""
        from regard.lens.notebook import table

        return table(self)


@final
@dataclass(frozen=True, kw_only=True, eq=False)
class LayerView:
    """The maps of one attention, by head.

    Args:
        path: of the attention in the model.
        rows, columns: names of the axes that attend and that are attended to.
        grid: (H, r, c), the mean weight that a query of a row bin gives all keys of a column bin together: rows sum
            to 1, less what a sink takes. With one place a bin these are the weights.
        row_edges, column_edges: first place of each bin, and the end of the last: r + 1 and c + 1 numbers.
        entropy: (H, L) in nats, or (H, 1), the mean over the queries; None if not recorded.
        distance: (H, L), the query's position less the mean position of its keys, or (H, 1); None if not recorded.
        key_mass: (H, S), the weight that each key receives from all queries together; None if not recorded.
        top_keys, top_weights: (H, L, k), the largest weights of each query and their keys, -1 where there are fewer.
        error: the largest difference between the weights' mixture of the values and the model's own output, relative to
            the largest value; None if it was not measured.
    """

    path: str
    rows: str
    columns: str
    grid: Tensor
    row_edges: Sequence[int]
    column_edges: Sequence[int]
    entropy: Tensor | None = None
    distance: Tensor | None = None
    key_mass: Tensor | None = None
    top_keys: Tensor | None = None
    top_weights: Tensor | None = None
    error: float | None = None

    def __post_init__(self) -> None:
        bins = (len(self.row_edges) - 1, len(self.column_edges) - 1)
        if self.grid.dim() != 3 or tuple(self.grid.shape[1:]) != bins:
            raise ShapeError(
                f"LayerView {self.path!r}: the grid has shape {tuple(self.grid.shape)}; expected (heads, {bins[0]}, "
                f"{bins[1]}), the bins that the edges name"
            )
        if not bool(self.grid.isfinite().all()):
            raise ShapeError(f"LayerView {self.path!r}: the grid holds numbers that are not finite")

    @property
    def num_heads(self) -> int:
        """H."""
        return int(self.grid.shape[0])

    @property
    def exact(self) -> bool:
        """Whether each cell is a single weight."""
        return self.row_edges[-1] == len(self.row_edges) - 1 and self.column_edges[-1] == len(self.column_edges) - 1


@final
@dataclass(frozen=True, kw_only=True, eq=False)
class Attribution:
    """How much each place of an input mattered for one output, by one method, and how far that can be trusted.

    Args:
        method: name of the method, as "rollout", "attention x gradient".
        axis: name of the axis.
        scores: (S,), larger for what mattered more.
        target: what the scores explain, as a label or a word.
        trust: measures of the scores by name, as comprehensiveness and sufficiency, and the same of random scores under
            "random " and the name.
    """

    method: str
    axis: str
    scores: Tensor
    target: str = ""
    trust: Mapping[str, float] = field(default_factory=dict)


@final
@dataclass(frozen=True, kw_only=True, eq=False)
class View:
    """All that a page shows of one run.

    Args:
        title: of the page.
        axes: by name.
        layers: in the model's order.
        attributions: scores of places, shown beside the maps.
        notes: lines for the reader, as of what was not captured.

    Raises:
        ConfigError: a layer or attribution that names no axis.
        ShapeError: edges that end elsewhere than their axis.
    """

    title: str
    axes: Mapping[str, Axis]
    layers: Sequence[LayerView]
    attributions: Sequence[Attribution] = ()
    notes: Sequence[str] = ()

    def __post_init__(self) -> None:
        for layer in self.layers:
            for name, edges in ((layer.rows, layer.row_edges), (layer.columns, layer.column_edges)):
                if name not in self.axes:
                    raise ConfigError(f"View: {layer.path!r} has the axis {name!r}; known: {', '.join(self.axes)}")
                if edges[-1] != len(self.axes[name]):
                    raise ShapeError(
                        f"View: the bins of {layer.path!r} end at {edges[-1]}, and its axis {name!r} has "
                        f"{len(self.axes[name])} places"
                    )
        for one in self.attributions:
            if one.axis not in self.axes or one.scores.shape != (len(self.axes[one.axis]),):
                raise ConfigError(
                    f"View: the attribution {one.method!r} has scores {tuple(one.scores.shape)} of the axis "
                    f"{one.axis!r}; expected one of each of its places"
                )

    @property
    def kinds(self) -> list[str]:
        """The kinds of attention: "cross", "encoder", "decoder" or "text", or the names of other axes."""
        kinds = dict.fromkeys(kind_of_axes(layer) for layer in self.layers)
        return sorted(kinds, key=lambda kind: ORDER.index(kind) if kind in ORDER else len(ORDER))

    def layers_of(self, kind: str) -> list[LayerView]:
        """The attentions of a kind, in the model's order.

        Raises:
            ConfigError: a kind that the model does not have.
        """
        layers = [layer for layer in self.layers if kind_of_axes(layer) == kind]
        if not layers:
            raise ConfigError(f"attention: the model has no kind {kind!r}; {nearest(kind, self.kinds or ['none'])}")
        return layers

    def map(self, kind: str | None = None, *, layer: int | None = None, head: int | None = None) -> HeatMap:
        """One map, its bins as places.

        Args:
            kind: of attention; the first by default.
            layer: counted from 1; None for the mean of the layers.
            head: counted from 1; None for the mean of the heads.

        Returns:
            The map: weights of bins, and the labels of its axes.

        Raises:
            ConfigError: a kind, layer or head that the model does not have.
        """
        layers = self.layers_of(kind or next(iter(self.kinds), "none"))
        first = layers[0]
        check_number("layer", layer, len(layers))
        chosen = layers if layer is None else [layers[layer - 1]]
        check_number("head", head, min(one.num_heads for one in chosen))
        maps = [one.grid.mean(0) if head is None else one.grid[head - 1] for one in chosen]
        counts = [("layer", layer, len(layers)), ("head", head, first.num_heads)]
        parts = [f"mean of {n} {name}s" if i is None else f"{name} {i}" for name, i, n in counts if n > 1]
        return HeatMap(
            rows=self.axes[first.rows].bins(first.row_edges), columns=self.axes[first.columns].bins(first.column_edges),
            row_axis=first.rows, column_axis=first.columns, weights=torch.stack(maps).mean(0),
            title=", ".join([f"Attention of {name_of_axes(first)}", *parts]),
        )  # fmt: skip

    def show(self, *, height: int = 900) -> "Frame":
        """The page inside a notebook, as the last value of a cell.

        Args:
            height: of the frame, in pixels.

        Returns:
            What notebooks show as a frame; nothing is shown elsewhere.
        """
        from regard.lens.notebook import Frame
        from regard.lens.page import page

        return Frame(page(self), height)

    def _repr_html_(self) -> str | None:
        """As notebooks show it: the mean of all layers and heads of the first kind."""
        return self.map()._repr_html_() if self.layers else None


ORDER = ("cross", "encoder", "decoder", "text")  # of kinds: the first is shown first
KINDS = {
    ("target", "source"): "cross", ("source", "source"): "encoder", ("target", "target"): "decoder",
    ("target", "target read"): "decoder", ("text", "text"): "text",
}  # fmt: skip


def kind_of_axes(layer: LayerView) -> str:
    """The kind of an attention by its axes."""
    same = layer.rows if layer.rows == layer.columns else f"{layer.rows} to {layer.columns}"
    return KINDS.get((layer.rows, layer.columns), same)


def name_of_axes(layer: LayerView) -> str:
    """The axes of an attention in words."""
    return f"{layer.rows} to {'itself' if layer.rows == layer.columns else layer.columns}"


def check_number(name: str, number: int | None, count: int) -> None:
    """Raise ConfigError unless a layer or head, counted from 1, is there."""
    if number is not None and not 1 <= number <= count:
        raise ConfigError(f"attention: {name}={number} is not one of the {count} there are; count from 1 to {count}")


def bin_edges(size: int, bins: int) -> list[int]:
    """Edges of at most `bins` equal bins over `size` places: a power of two of places each, the last one shorter.

    Args:
        size: places, >= 1.
        bins: how many at most, >= 1.

    Returns:
        The first place of each bin, and `size`.

    >>> bin_edges(10, 4)
    [0, 4, 8, 10]
    """
    width = 1
    while -(-size // width) > bins:
        width *= 2
    return [*range(0, size, width), size]


def binned(weights: Tensor, row_edges: Sequence[int], column_edges: Sequence[int]) -> Tensor:
    """Weights by bins: the sum over a bin's keys, the mean over a bin's queries.

    Args:
        weights: (..., L, S).
        row_edges, column_edges: of the bins.

    Returns:
        (..., r, c).
    """

    columns = _sums(weights, column_edges)
    heights = torch.tensor(list(row_edges), device=weights.device).diff().to(weights.dtype)
    return _sums(columns.transpose(-1, -2), row_edges).transpose(-1, -2) / heights[:, None]


def bin_index(size: int, edges: Sequence[int], device: torch.device | None = None) -> Tensor:
    """The bin of each place: (size,)."""
    inner = torch.tensor(list(edges[1:-1]), dtype=torch.int64, device=device)
    return torch.bucketize(torch.arange(size, device=device), inner, right=True)


def _sums(x: Tensor, edges: Sequence[int]) -> Tensor:
    """Sums of the last axis between edges."""
    index = bin_index(x.shape[-1], edges, x.device)
    return x.new_zeros(*x.shape[:-1], len(edges) - 1).index_add(-1, index, x)
