"""Tiling of the score matrix: rows per block, columns per tile, and which runs of columns share a tile."""

from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import NamedTuple

from torch import Tensor

from regard.attention.engine.call import Call
from regard.attention.normalizer import NormalizedSigmoid, Sigmoid, Softmax
from regard.attention.patterns.pattern import Pattern
from regard.attention.patterns.schedule import Run, Schedule
from regard.attention.value import has_tensors

TILE = 1 << 20  # elements of the scores of a tile, over batch and heads
BLOCKS = (64, 128, 256, 512)  # candidate numbers of rows per block
TILE_OVERHEAD = 60_000  # fixed cost of a tile, in (query, key) pairs


class Tile(NamedTuple):
    """Tile: the rows of a query block and one or more runs of columns."""

    rows: slice
    runs: tuple[Run, ...]

    @property
    def width(self) -> int:
        """Total number of columns."""
        return sum(run.stop - run.start for run in self.runs)


class Block(NamedTuple):
    """Query block: its rows, and the tiles that cover all columns visible to them."""

    rows: slice
    tiles: tuple[Tile, ...]


def cut(call: Call) -> tuple[Block, ...]:
    """Cut a call into tiles of about TILE elements, with the cheapest block size; cached if independent of data."""
    batch, heads, num_queries, head_dim = call.query.shape
    matrices, pattern, start = batch * heads, call.spec.pattern, call.query_start
    tile_pairs = max(1, TILE // (matrices * call.spec.score.width(head_dim)))
    whole_rows = not isinstance(call.spec.normalizer, Softmax | Sigmoid | NormalizedSigmoid)
    cached = not (has_tensors(pattern) or isinstance(start, Tensor))
    return (_cut_cached if cached else _cut)(
        pattern, num_queries, call.key.shape[2], start, call.key_start, matrices, tile_pairs, whole_rows
    )


def _cut(
    pattern: Pattern,
    num_queries: int,
    num_keys: int,
    query_start: int | Tensor,
    key_start: int,
    matrices: int,
    tile_pairs: int,
    whole_rows: bool,
) -> tuple[Block, ...]:
    """Blocks with `tile_pairs` pairs per tile in each of `matrices` score matrices, or one tile if `whole_rows`."""

    def schedule(block: int) -> Schedule:
        return pattern.schedule(num_queries, num_keys, query_start=query_start, key_start=key_start, block=block)

    if whole_rows:
        rows = max(1, min(num_queries, tile_pairs // num_keys, BLOCKS[-1]))
        return tuple(_blocks(schedule(rows), num_keys))
    sizes = [b for b in BLOCKS if b * b <= tile_pairs * 4 and b < 2 * num_queries]
    sizes = sizes or [max(1, min(num_queries, tile_pairs))]
    if has_tensors(pattern):  # evaluating its data for every size would cost more than it saves
        sizes = sizes[len(sizes) // 2 :][:1]

    def cost(size: int) -> float:
        candidate = schedule(size)
        tiles = float((-(-(candidate.full.size() + candidate.mixed.size()) // max(1, tile_pairs // size))).sum())
        return candidate.full_pairs + 1.5 * candidate.mixed_pairs + tiles * TILE_OVERHEAD / matrices

    best = min(sizes, key=cost) if len(sizes) > 1 else sizes[0]
    return tuple(_blocks(schedule(best), max(1, tile_pairs // best)))


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
    """Merge adjacent runs if one is shorter than `short`: masking is cheaper than a separate tile."""
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
