"""Which tiles of the score matrix a pattern leaves empty, fills, or mixes.

The rows are cut into blocks of queries. For each block a pattern tells two sets of keys: those that *some* query of
the block may see, and those that *every* one sees; the first may be too large and the second too small, never the
other way round. Combinations follow by set algebra (`pattern.py`), and the schedule by difference: a key that every
query sees is FULL, one that only some may see is MIXED, the rest is EMPTY and costs nothing.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from regard.attention.patterns.intervals import FAR, Bools, Intervals, Ints

CELL = 64  # columns that a pattern made of data tells apart


@dataclass(frozen=True)
class Blocks:
    """The query blocks that a schedule is asked for, and the keys they may reach.

    Rows and columns count from 0 in the call's tensors; positions count from the start of the sequence. Where each
    sequence of a batch has its own `query_start`, a block spans the positions of all of them.
    """

    edges: Ints  # (blocks + 1,): block i holds the rows edges[i] to edges[i + 1]
    first: Ints  # (blocks,): the least position in the block
    last: Ints  # (blocks,): the greatest
    key_start: int  # the position of column 0
    num_keys: int

    @staticmethod
    def cut(num_queries: int, num_keys: int, block: int, starts: tuple[int, int], key_start: int) -> "Blocks":
        """Blocks of `block` rows, for query starts between the two given."""
        edges = np.append(np.arange(0, num_queries, block), num_queries)
        return Blocks(edges, edges[:-1] + starts[0], edges[1:] - 1 + starts[1], key_start, num_keys)

    def __len__(self) -> int:
        return len(self.first)

    def cells(self) -> Ints:
        """The edges, in columns, of the cells of CELL keys: (cells + 1,)."""
        return np.append(np.arange(0, self.num_keys, CELL), self.num_keys)


class Reach(NamedTuple):
    """For each query block: positions that `some` query may see, and that `every` query sees."""

    some: Intervals
    every: Intervals

    @staticmethod
    def of_cells(some: Bools, every: Bools, blocks: Blocks) -> "Reach":
        """From two grids (blocks or 1, cells) over `blocks.cells()`."""
        shape, edges = (len(blocks), some.shape[1]), blocks.cells() + blocks.key_start
        return Reach(*(Intervals.of_grid(np.broadcast_to(grid, shape), edges) for grid in (some, every)))


class Run(NamedTuple):
    """Columns start <= column < stop of a block: all visible to all its rows (`full`), or some to some."""

    start: int
    stop: int
    full: bool


@dataclass(frozen=True)
class Schedule:
    """The tiles of a score matrix that are not empty: by block of rows, runs of columns."""

    edges: Ints  # (blocks + 1,), rows
    full: Intervals  # columns
    mixed: Intervals  # columns

    @staticmethod
    def of(reach: Reach, blocks: Blocks) -> "Schedule":
        columns = Intervals.of([blocks.key_start], [blocks.key_start + blocks.num_keys], len(blocks))
        full = reach.every & columns
        mixed = reach.some & columns & ~full
        at = blocks.key_start
        return Schedule(blocks.edges, full.moved(-at), mixed.moved(-at))

    def __len__(self) -> int:
        return len(self.edges) - 1

    def __iter__(self) -> Iterator[tuple[slice, list[Run]]]:
        """Each block's rows and its runs, in the order of their columns."""
        starts = np.hstack([self.full.starts, self.mixed.starts])
        stops = np.hstack([self.full.stops, self.mixed.stops])
        order = starts.argsort(1)
        full = (order < self.full.starts.shape[1]).tolist()
        starts, stops = (np.take_along_axis(x, order, 1).tolist() for x in (starts, stops))
        edges = self.edges.tolist()
        for i, columns in enumerate(zip(starts, stops, full, strict=True)):
            yield slice(edges[i], edges[i + 1]), [Run(*run) for run in zip(*columns, strict=True) if run[0] < FAR]

    @property
    def full_pairs(self) -> int:
        """How many (query, key) pairs lie in full tiles."""
        return int((self.full.size() * np.diff(self.edges)).sum())

    @property
    def mixed_pairs(self) -> int:
        """How many (query, key) pairs lie in mixed tiles."""
        return int((self.mixed.size() * np.diff(self.edges)).sum())
