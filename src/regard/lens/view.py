"""What a page or a picture of attention shows: labelled axes, and binned maps of layers and heads over them.

Layout: H heads, L queries, S keys, r and c bins of queries and keys, k largest weights of a query.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import final

import torch
from torch import Tensor

from regard.errors import ConfigError, ShapeError


@final
@dataclass(frozen=True, kw_only=True)
class Axis:
    """A list of labelled places in one input of a model: words, tokens; later frames of sound, patches of a picture.

    Args:
        name: what the places are, as "text", "source", "target".
        labels: one a place, in order.
        special: places of tokens that are no words: start, end, padding.
    """

    name: str
    labels: Sequence[str]
    special: frozenset[int] = frozenset()

    def __post_init__(self) -> None:
        if any(not 0 <= place < len(self.labels) for place in self.special):
            raise ConfigError(
                f"Axis {self.name!r}: special={sorted(self.special)} must be places of {len(self)} labels"
            )

    def __len__(self) -> int:
        return len(self.labels)


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
        entropy: (H, L) in nats, None if not recorded.
        distance: (H, L), the query's position less the mean position of its keys; None if not recorded.
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
        trust: measures of the scores by name, as comprehensiveness, sufficiency, and those of random scores.
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
