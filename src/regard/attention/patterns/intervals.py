"""Sets of key positions, one for each query block, as sorted disjoint intervals; the algebra of block schedules.

The sets of all blocks are held in two arrays (blocks, k), so that a combination of patterns costs a few array
operations, however long the sequence.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Ints = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]

FAR = 2**62  # beyond every position


@dataclass(frozen=True)
class Intervals:
    """For each block, `starts[block, i] <= key < stops[block, i]`. Empty intervals stand last, as (FAR, FAR)."""

    starts: Ints  # (blocks, k)
    stops: Ints  # (blocks, k)

    @staticmethod
    def of(starts: npt.ArrayLike, stops: npt.ArrayLike, blocks: int) -> "Intervals":
        """Intervals that are disjoint in each block, in any order; scalars and (k,) stand for every block."""
        lows, highs = np.broadcast_arrays(_columns(starts), _columns(stops))
        shape = (blocks, lows.shape[1])
        return _tidy(np.broadcast_to(lows, shape), np.broadcast_to(highs, shape))

    @staticmethod
    def everything(blocks: int) -> "Intervals":
        return Intervals.of([-FAR], [FAR], blocks)

    @staticmethod
    def nothing(blocks: int) -> "Intervals":
        return Intervals.of([], [], blocks)

    @staticmethod
    def of_grid(grid: Bools, edges: Ints) -> "Intervals":
        """The runs of True in each row of a grid (blocks, cells), whose cell i spans edges[i] to edges[i + 1]."""
        blocks = grid.shape[0]
        change = np.diff(np.pad(grid, ((0, 0), (1, 1))).astype(np.int8), axis=1)
        row, first = np.nonzero(change == 1)
        _, past = np.nonzero(change == -1)
        return _placed(row, edges[first], edges[past], blocks)

    def __and__(self, other: "Intervals") -> "Intervals":
        starts = np.maximum(self.starts[:, :, None], other.starts[:, None, :])
        stops = np.minimum(self.stops[:, :, None], other.stops[:, None, :])
        shape = (len(starts), starts.shape[1] * starts.shape[2])
        return _tidy(starts.reshape(shape), stops.reshape(shape))

    def __invert__(self) -> "Intervals":
        ends = np.full((len(self.starts), 1), FAR)
        return _tidy(np.hstack([-ends, self.stops]), np.hstack([self.starts, ends]))

    def __or__(self, other: "Intervals") -> "Intervals":
        starts, stops = (np.hstack(pair) for pair in ((self.starts, other.starts), (self.stops, other.stops)))
        order = starts.argsort(1)
        starts, stops = np.take_along_axis(starts, order, 1), np.take_along_axis(stops, order, 1)
        stops = np.maximum.accumulate(np.where(starts < FAR, stops, -FAR), axis=1)
        opens = starts < FAR
        opens[:, 1:] &= starts[:, 1:] > stops[:, :-1]
        row, column = np.nonzero(opens)
        last = np.append(np.where(row[1:] == row[:-1], column[1:], starts.shape[1]), starts.shape[1])[: len(row)] - 1
        return _placed(row, starts[row, column], stops[row, last], len(starts))

    def where(self, blocks: Bools, other: "Intervals") -> "Intervals":
        """These sets for the blocks that are True, the other's for the rest."""
        width = max(self.starts.shape[1], other.starts.shape[1])
        pairs = ((self.starts, other.starts), (self.stops, other.stops))
        return Intervals(*(np.where(blocks[:, None], _padded(a, width), _padded(b, width)) for a, b in pairs))

    def moved(self, by: int) -> "Intervals":
        """The sets with every position moved; empty intervals stay where they are."""
        return self if by == 0 else Intervals(*(np.where(x == FAR, FAR, x + by) for x in (self.starts, self.stops)))

    def size(self) -> Ints:
        """How many positions each block's set has: (blocks,)."""
        sizes: Ints = (self.stops - self.starts).sum(1)
        return sizes


def _columns(x: npt.ArrayLike) -> Ints:
    array = np.asarray(x, dtype=np.int64)
    return array if array.ndim == 2 else np.atleast_1d(array)[None]


def _tidy(starts: Ints, stops: Ints) -> Intervals:
    """Sorted, empty intervals last, no more columns than the fullest block needs."""
    empty = starts >= stops
    starts, stops = np.where(empty, FAR, starts), np.where(empty, FAR, stops)
    if starts.shape[1] > 1 and (starts[:, 1:] < starts[:, :-1]).any():
        order = starts.argsort(1)
        starts, stops = np.take_along_axis(starts, order, 1), np.take_along_axis(stops, order, 1)
    width = int((~empty).sum(1).max(initial=0))
    return Intervals(starts[:, :width], stops[:, :width])


def _placed(row: Ints, starts: Ints, stops: Ints, blocks: int) -> Intervals:
    """One interval for each entry, into its row; the rows and the starts in each ascend."""
    counts = np.bincount(row, minlength=blocks)
    nth = np.arange(len(row)) - (np.cumsum(counts) - counts)[row]
    placed = np.full((2, blocks, counts.max(initial=0)), FAR)
    placed[:, row, nth] = starts, stops
    return Intervals(placed[0], placed[1])


def _padded(x: Ints, width: int) -> Ints:
    return np.pad(x, ((0, 0), (0, width - x.shape[1])), constant_values=FAR)
