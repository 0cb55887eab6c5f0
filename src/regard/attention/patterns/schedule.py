"""Schedules: which tiles of the score matrix are full, mixed or empty under a pattern.

The rows are divided into blocks of queries. For each block, a pattern gives two sets of keys: those that *some* query
of the block may see, and those that *every* query sees. The first may be too large and the second too small, never the
other way round. Combinations of patterns follow by set operations (`pattern.py`). A key that every query sees is full,
a key that only some may see is mixed, and the rest is empty and not computed.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from regard.attention.patterns.intervals import FAR, Bools, Intervals, Ints

CELL = 64  # columns per cell, the resolution of patterns that depend on data


@dataclass(frozen=True)
class Blocks:
    """Query blocks of a schedule, and its range of keys.

    Rows and columns are indices of the call's tensors; positions are relative to the start of the sequence. If each
    sequence of a batch has its own `query_start`, a block spans the positions of all sequences.
    """

    edges: Ints  # (blocks + 1,): block i has rows edges[i] to edges[i + 1]
    first: Ints  # (blocks,): smallest position in the block
    last: Ints  # (blocks,): largest position in the block
    key_start: int  # position of column 0
    num_keys: int

    @staticmethod
    def cut(num_queries: int, num_keys: int, block: int, starts: tuple[int, int], key_start: int) -> "Blocks":
        """Divide the rows into blocks of `block` rows; `starts`: smallest and largest query start."""
        edges = np.append(np.arange(0, num_queries, block), num_queries)
        return Blocks(edges, edges[:-1] + starts[0], edges[1:] - 1 + starts[1], key_start, num_keys)

    def __len__(self) -> int:
        return len(self.first)

    def cells(self) -> Ints:
        """Edges, in columns, of the cells of CELL keys, (cells + 1,)."""
        return np.append(np.arange(0, self.num_keys, CELL), self.num_keys)


class KeyRanges(NamedTuple):
    """Key positions that `some` query of each block may see, and those that `every` query of it sees."""

    some: Intervals
    every: Intervals

    @staticmethod
    def of_cells(some: Bools, every: Bools, blocks: Blocks) -> "KeyRanges":
        """From two boolean grids (blocks or 1, cells) over `blocks.cells()`."""
        shape, edges = (len(blocks), some.shape[1]), blocks.cells() + blocks.key_start
        return KeyRanges(*(Intervals.of_grid(np.broadcast_to(grid, shape), edges) for grid in (some, every)))


class Run(NamedTuple):
    """Columns start <= column < stop of a block; `full`: every row sees all of them, else mixed."""

    start: int
    stop: int
    full: bool


@dataclass(frozen=True)
class Schedule:
    """Nonempty tiles of a score matrix: runs of columns for each block of rows."""

    edges: Ints  # (blocks + 1,), rows
    full: Intervals  # columns
    mixed: Intervals  # columns

    @staticmethod
    def of(ranges: KeyRanges, blocks: Blocks) -> "Schedule":
        """Schedule of the key ranges of a pattern."""
        columns = Intervals.of([blocks.key_start], [blocks.key_start + blocks.num_keys], len(blocks))
        full = ranges.every & columns
        mixed = ranges.some & columns & ~full
        return Schedule(blocks.edges, full.shifted(-blocks.key_start), mixed.shifted(-blocks.key_start))

    def __len__(self) -> int:
        return len(self.edges) - 1

    def __iter__(self) -> Iterator[tuple[slice, list[Run]]]:
        """Rows of each block, with its runs in column order."""
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
        """Number of (query, key) pairs in full tiles."""
        return int((self.full.size() * np.diff(self.edges)).sum())

    @property
    def mixed_pairs(self) -> int:
        """Number of (query, key) pairs in mixed tiles."""
        return int((self.mixed.size() * np.diff(self.edges)).sum())
