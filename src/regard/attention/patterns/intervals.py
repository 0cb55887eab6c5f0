"""Sets of key positions, one for each query block, as sorted disjoint intervals, with set operations.

The sets of all blocks are stored in two arrays (blocks, k), so that a combination of patterns takes a few array
operations, independent of the sequence length.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Ints = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]

FAR = 2**62  # larger than any position


@dataclass(frozen=True)
class Intervals:
    """Key intervals `starts[block, i] <= key < stops[block, i]` of each block; empty ones are last, as (FAR, FAR)."""

    starts: Ints  # (blocks, k)
    stops: Ints  # (blocks, k)

    @staticmethod
    def of(starts: npt.ArrayLike, stops: npt.ArrayLike, blocks: int) -> "Intervals":
        """From intervals in any order, disjoint within each block; scalars and (k,) are broadcast to all blocks."""
        lows, highs = np.broadcast_arrays(_columns(starts), _columns(stops))
        shape = (blocks, lows.shape[1])
        return _normalized(np.broadcast_to(lows, shape), np.broadcast_to(highs, shape))

    @staticmethod
    def everything(blocks: int) -> "Intervals":
        return Intervals.of([-FAR], [FAR], blocks)

    @staticmethod
    def nothing(blocks: int) -> "Intervals":
        return Intervals.of([], [], blocks)

    @staticmethod
    def of_grid(grid: Bools, edges: Ints) -> "Intervals":
        """Runs of True in each row of a grid (blocks, cells), whose cell i spans edges[i] to edges[i + 1]."""
        blocks = grid.shape[0]
        change = np.diff(np.pad(grid, ((0, 0), (1, 1))).astype(np.int8), axis=1)
        row, first = np.nonzero(change == 1)
        _, past = np.nonzero(change == -1)
        return _from_flat(row, edges[first], edges[past], blocks)

    def __and__(self, other: "Intervals") -> "Intervals":
        starts = np.maximum(self.starts[:, :, None], other.starts[:, None, :])
        stops = np.minimum(self.stops[:, :, None], other.stops[:, None, :])
        shape = (len(starts), starts.shape[1] * starts.shape[2])
        return _normalized(starts.reshape(shape), stops.reshape(shape))

    def __invert__(self) -> "Intervals":
        ends = np.full((len(self.starts), 1), FAR)
        return _normalized(np.hstack([-ends, self.stops]), np.hstack([self.starts, ends]))

    def __or__(self, other: "Intervals") -> "Intervals":
        starts, stops = (np.hstack(pair) for pair in ((self.starts, other.starts), (self.stops, other.stops)))
        order = starts.argsort(1)
        starts, stops = np.take_along_axis(starts, order, 1), np.take_along_axis(stops, order, 1)
        stops = np.maximum.accumulate(np.where(starts < FAR, stops, -FAR), axis=1)
        opens = starts < FAR
        opens[:, 1:] &= starts[:, 1:] > stops[:, :-1]
        row, column = np.nonzero(opens)
        last = np.append(np.where(row[1:] == row[:-1], column[1:], starts.shape[1]), starts.shape[1])[: len(row)] - 1
        return _from_flat(row, starts[row, column], stops[row, last], len(starts))

    def where(self, blocks: Bools, other: "Intervals") -> "Intervals":
        """These sets for blocks that are True, those of `other` for the rest."""
        width = max(self.starts.shape[1], other.starts.shape[1])
        pairs = ((self.starts, other.starts), (self.stops, other.stops))
        return Intervals(*(np.where(blocks[:, None], _padded(a, width), _padded(b, width)) for a, b in pairs))

    def shifted(self, by: int) -> "Intervals":
        """Sets shifted by `by` positions; empty intervals are unchanged."""
        return self if by == 0 else Intervals(*(np.where(x == FAR, FAR, x + by) for x in (self.starts, self.stops)))

    def size(self) -> Ints:
        """Number of positions in the set of each block, (blocks,)."""
        sizes: Ints = (self.stops - self.starts).sum(1)
        return sizes


def _columns(x: npt.ArrayLike) -> Ints:
    array = np.asarray(x, dtype=np.int64)
    return array if array.ndim == 2 else np.atleast_1d(array)[None]


def _normalized(starts: Ints, stops: Ints) -> Intervals:
    """Intervals sorted, with empty ones last and as few columns as possible."""
    empty = starts >= stops
    starts, stops = np.where(empty, FAR, starts), np.where(empty, FAR, stops)
    if starts.shape[1] > 1 and (starts[:, 1:] < starts[:, :-1]).any():
        order = starts.argsort(1)
        starts, stops = np.take_along_axis(starts, order, 1), np.take_along_axis(stops, order, 1)
    width = int((~empty).sum(1).max(initial=0))
    return Intervals(starts[:, :width], stops[:, :width])


def _from_flat(row: Ints, starts: Ints, stops: Ints, blocks: int) -> Intervals:
    """Intervals from flat lists in ascending order: entry i belongs to block row[i]."""
    counts = np.bincount(row, minlength=blocks)
    nth = np.arange(len(row)) - (np.cumsum(counts) - counts)[row]
    intervals = np.full((2, blocks, counts.max(initial=0)), FAR)
    intervals[:, row, nth] = starts, stops
    return Intervals(intervals[0], intervals[1])


def _padded(x: Ints, width: int) -> Ints:
    return np.pad(x, ((0, 0), (0, width - x.shape[1])), constant_values=FAR)
