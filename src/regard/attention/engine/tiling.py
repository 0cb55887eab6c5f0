"""The score matrix cut into tiles: how many rows to a block, how many columns to a tile, which runs together."""

from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import NamedTuple

from torch import Tensor

from regard.attention.engine.call import Call
from regard.attention.normalizer import Sigmoid, Softmax
from regard.attention.patterns.pattern import Pattern
from regard.attention.patterns.schedule import Run, Schedule
from regard.attention.value import holds_tensors

TILE = 1 << 20  # numbers alive at once in a tile's scores, over the batch and heads
BLOCKS = (64, 128, 256, 512)  # rows of a block to choose from
TILE_OVERHEAD = 60_000  # a tile's fixed cost, in pairs


class Tile(NamedTuple):
    """Rows of a query block, and one or more runs of columns."""

    rows: slice
    runs: tuple[Run, ...]

    @property
    def width(self) -> int:
        """How many columns its runs have together."""
        return sum(run.stop - run.start for run in self.runs)


class Block(NamedTuple):
    """Rows, and the tiles that cover the columns they reach."""

    rows: slice
    tiles: tuple[Tile, ...]


def cut(call: Call) -> tuple[Block, ...]:
    """The tiles of a call, of about TILE numbers each, in the cheapest of a few shapes; cached unless data decide."""
    batch, heads, num_queries, head_dim = call.query.shape
    planes, pattern, start = batch * heads, call.spec.pattern, call.query_start
    room = max(1, TILE // (planes * call.spec.score.width(head_dim)))
    whole_rows = not isinstance(call.spec.normalizer, Softmax | Sigmoid)
    cached = not (holds_tensors(pattern) or isinstance(start, Tensor))
    return (_cut_cached if cached else _cut)(
        pattern, num_queries, call.key.shape[2], start, call.key_start, planes, room, whole_rows
    )


def _cut(
    pattern: Pattern,
    num_queries: int,
    num_keys: int,
    query_start: int | Tensor,
    key_start: int,
    planes: int,
    room: int,
    whole_rows: bool,
) -> tuple[Block, ...]:
    """Blocks of rows; `room` pairs to a tile in each of `planes` score matrices; `whole_rows`: one tile to a block."""

    def schedule(block: int) -> Schedule:
        return pattern.schedule(num_queries, num_keys, query_start=query_start, key_start=key_start, block=block)

    if whole_rows:
        rows = max(1, min(num_queries, room // num_keys, BLOCKS[-1]))
        return tuple(_blocks(schedule(rows), num_keys))
    sizes = [b for b in BLOCKS if b * b <= room * 4 and b < 2 * num_queries] or [max(1, min(num_queries, room))]
    if holds_tensors(pattern):  # reading its data for every size would cost more than it saves
        sizes = sizes[len(sizes) // 2 :][:1]

    def price(size: int) -> float:
        tried = schedule(size)
        tiles = float((-(-(tried.full.size() + tried.mixed.size()) // max(1, room // size))).sum())
        return tried.full_pairs + 1.5 * tried.mixed_pairs + tiles * TILE_OVERHEAD / planes

    best = min(sizes, key=price) if len(sizes) > 1 else sizes[0]
    return tuple(_blocks(schedule(best), max(1, room // best)))


_cut_cached = lru_cache(maxsize=256)(_cut)


def _blocks(schedule: Schedule, chunk: int) -> Iterator[Block]:
    for rows, runs in schedule:
        height = rows.stop - rows.start
        pieces = [p for run in _merged(runs, 2 * height) for p in _pieces(run, chunk)]
        tiles: list[Tile] = []
        for piece in pieces:
            if tiles and tiles[-1].width + piece.stop - piece.start <= chunk:
                tiles[-1] = Tile(rows, (*tiles[-1].runs, piece))
            else:
                tiles.append(Tile(rows, (piece,)))
        yield Block(rows, tuple(tiles))


def _merged(runs: Sequence[Run], short: int) -> list[Run]:
    """Neighbors become one mixed run where one of them is short: masking it is cheaper than a tile of its own."""
    merged: list[Run] = []
    for run in runs:
        last = merged[-1] if merged else None
        if last is not None and last.stop == run.start:
            same = last.full == run.full
            if same or min(last.stop - last.start, run.stop - run.start) < short:
                merged[-1] = Run(last.start, run.stop, last.full and run.full)
                continue
        merged.append(run)
    return merged


def _pieces(run: Run, chunk: int) -> Iterator[Run]:
    for start in range(run.start, run.stop, chunk):
        yield Run(start, min(start + chunk, run.stop), run.full)
