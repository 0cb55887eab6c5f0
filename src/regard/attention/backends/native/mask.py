"""Masks of the native kernels: a band, key lengths, documents, and bit tiles for all other patterns."""

from collections.abc import Iterator
from functools import lru_cache, reduce
from operator import and_
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from regard.attention.engine.call import Call
from regard.attention.engine.tracing import array
from regard.attention.patterns.pattern import And, Causal, Dilated, Full, Pattern, SlidingWindow, positions
from regard.attention.patterns.sequence_pattern import Documents, KeyLengths
from regard.attention.value import has_tensors, slice_value

SIDE = 64  # rows and columns of a tile in the kernels
EMPTY, FULL = -1, -2
NO_BOUND = 2**63 - 1
MIN_PART = 16  # minimum rows and columns of a part: the widest vector, in floats


class NativeMask(NamedTuple):
    """Conditions of a mask; a pair is visible if all of them hold. Rows and columns are counted from 0."""

    min_offset: int = -NO_BOUND  # of column - row - start
    max_offset: int = NO_BOUND
    start: int = 0  # query_start - key_start
    starts: Tensor | None = None  # (B,), replaces `start`
    lengths: Tensor | None = None  # (B,), columns
    query_ids: Tensor | None = None  # (B or 1, L)
    key_ids: Tensor | None = None  # (B or 1, S)
    tiles: Tensor | None = None  # (B or 1, H or 1, row blocks, column blocks): EMPTY, FULL, or an index of `bits`
    bits: Tensor | None = None  # (mixed tiles, SIDE columns): one word of SIDE rows


class Part(NamedTuple):
    """Part of a call that is an independent attention: its rows, columns and mask."""

    rows: slice
    columns: slice
    mask: NativeMask


ALL = slice(None)


def native_parts(call: Call) -> list[Part]:
    """Split a call into independent attentions, for a dilated window; otherwise one part for the whole call.

    With a dilated window, positions of the same residue modulo the dilation see only each other, in a plain window.
    """
    spec, rows, columns = call.spec, call.query.shape[2], call.key.shape[2]
    parts = list(conjuncts(spec.pattern))
    dilated = [part for part in parts if isinstance(part, Dilated) and part.dilation > 1]
    # A bias, a prior, dropout and samples use row and column indices of the whole call.
    splittable = spec.bias is None and not spec.dropout and getattr(spec.normalizer, "prior", None) is None
    splittable = splittable and not spec.normalizer.draws
    banded = all(isinstance(part, Full | Causal | SlidingWindow) for part in parts if part not in dilated)
    if len(dilated) != 1 or not splittable or not banded or isinstance(call.query_start, Tensor):
        return [Part(ALL, ALL, native_mask(call))]
    dilation = dilated[0].dilation
    if MIN_PART * dilation > min(rows, columns):
        return [Part(ALL, ALL, native_mask(call))]
    min_offset, max_offset = _band(dilated[0], 1)
    for part in parts:
        if isinstance(part, Causal | SlidingWindow):
            low, high = _band(part, dilation)
            min_offset, max_offset = max(min_offset, low), min(max_offset, high)
    residues = []
    for row in range(dilation):
        column = (row + call.query_start - call.key_start) % dilation
        start = (row + call.query_start - call.key_start - column) // dilation
        mask = NativeMask(min_offset, max_offset, start)
        residues.append(Part(slice(row, None, dilation), slice(column, None, dilation), mask))
    return residues


def part_call(call: Call, part: Part) -> Call:
    """The call restricted to a part."""
    if part.rows is ALL:
        return call
    key, value = (x[:, :, part.columns] for x in (call.key, call.value))
    return call._replace(query=call.query[:, :, part.rows], key=key, value=value)


def rows_of(x: Any, part: Part) -> Any:
    """Rows of a part of a tensor (B, H, L, ...); None for None."""
    return x if x is None or part.rows is ALL else x[:, :, part.rows]


def _band(part: Causal | SlidingWindow | Dilated, step: int) -> tuple[int, int]:
    """Minimum and maximum offset from a query to a visible key, in units of `step` positions."""
    if isinstance(part, Causal):
        return -NO_BOUND, 0
    min_offset = -NO_BOUND if part.left is None else -(part.left // step)
    return min_offset, NO_BOUND if part.right is None else part.right // step


def native_mask(call: Call) -> NativeMask:
    """Mask of the pattern of a call."""
    min_offset, max_offset = -NO_BOUND, NO_BOUND
    lengths, ids, rest = list[Tensor](), list[Documents](), list[Pattern]()
    for part in conjuncts(call.spec.pattern):
        if isinstance(part, Causal | SlidingWindow):
            low, high = _band(part, 1)
            min_offset, max_offset = max(min_offset, low), min(max_offset, high)
        elif isinstance(part, KeyLengths):
            lengths.append(part.lengths)
        elif isinstance(part, Documents) and not ids:
            ids.append(part)
        elif not isinstance(part, Full):
            rest.append(part)
    batch, start = call.query.shape[0], call.query_start
    mask = NativeMask(min_offset, max_offset)
    if isinstance(start, Tensor):
        mask = mask._replace(starts=(start.long() - call.key_start).contiguous())
    else:
        mask = mask._replace(start=start - call.key_start)
    if lengths:
        shortest = reduce(torch.minimum, (x.long() for x in lengths)) - call.key_start
        mask = mask._replace(lengths=shortest.expand(batch).contiguous())
    if ids:
        mask = mask._replace(query_ids=ids[0].query_ids.long().contiguous(), key_ids=ids[0].key_ids.long().contiguous())
    if rest:
        pattern = reduce(and_, rest)
        cached = not (has_tensors(pattern) or isinstance(start, Tensor))
        tiles, bits = (_tiles_cached if cached else _tiles)(
            pattern, call.query.shape[2], call.key.shape[2], start, call.key_start
        )
        mask = mask._replace(tiles=tiles, bits=bits)
    return mask


def conjuncts(pattern: Pattern) -> Iterator[Pattern]:
    """Operands of a conjunction of patterns by &, flattened."""
    if isinstance(pattern, And):
        yield from conjuncts(pattern.left)
        yield from conjuncts(pattern.right)
    else:
        yield pattern


def _tiles(
    pattern: Pattern, num_queries: int, num_keys: int, query_start: int | Tensor, key_start: int
) -> tuple[Tensor, Tensor]:
    """Tile kinds, EMPTY, FULL or an index, and the bits of the mixed tiles."""
    schedule = pattern.schedule(num_queries, num_keys, query_start=query_start, key_start=key_start, block=SIDE)
    query_BL, key_S = positions(num_queries, num_keys, query_start, key_start, torch.device("cpu"))
    panels = -(-num_keys // SIDE)
    # A column block (panel) that no run covers completely is mixed.
    # of each mixed run of panels: row block, first panel, last panel + 1, booleans (b, h, rows, columns)
    mixed_runs = list[tuple[int, int, int, npt.NDArray[Any]]]()
    base = np.full((len(schedule), panels), EMPTY, np.int32)
    for block, (rows, runs) in enumerate(schedule):
        mixed = np.zeros(panels, dtype=bool)
        for start, stop, full in runs:
            if full:
                base[block, -(-start // SIDE) : stop // SIDE if stop < num_keys else panels] = FULL
                if start % SIDE:
                    mixed[start // SIDE] = True
                if stop % SIDE and stop < num_keys:
                    mixed[stop // SIDE] = True
            else:
                mixed[start // SIDE : -(-stop // SIDE)] = True
        for first, last in _runs_of(mixed):
            columns = slice(first * SIDE, min(last * SIDE, num_keys))
            visible = slice_value(pattern, rows, columns).visible(query_BL[:, rows], key_S[columns])
            shape = (*visible.shape[:2], rows.stop - rows.start, columns.stop - columns.start)
            mixed_runs.append((block, first, last, array(visible.expand(shape))))
    shape = np.broadcast_shapes((1, 1), *(x.shape[:2] for *_, x in mixed_runs))
    tiles = np.broadcast_to(base, (*shape, *base.shape)).copy()
    words, count = list[npt.NDArray[Any]](), 0
    for block, first, last, grid in mixed_runs:
        height, width = grid.shape[2:]
        padded = np.zeros((*shape, (last - first) * SIDE, SIDE), dtype=bool)
        padded[:, :, :width, :height] = np.broadcast_to(grid, (*shape, height, width)).transpose(0, 1, 3, 2)
        packed = np.packbits(padded, axis=-1, bitorder="little").view("<u8")[..., 0]
        packed = packed.reshape(*shape, last - first, SIDE)
        area = np.minimum(num_keys - np.arange(first, last) * SIDE, SIDE) * height
        total = padded.reshape(*shape, last - first, -1).sum(-1)
        is_mixed = (total > 0) & (total < area)
        kinds = tiles[:, :, block, first:last]
        kinds[total == 0], kinds[total == area] = EMPTY, FULL
        kinds[is_mixed] = np.arange(count, count + int(is_mixed.sum()))
        count += int(is_mixed.sum())
        words.append(packed[is_mixed])
    bits = np.concatenate(words) if count else np.zeros((1, SIDE), dtype=np.uint64)
    return torch.from_numpy(tiles), torch.from_numpy(bits.astype(np.uint64).view(np.int64))


_tiles_cached = lru_cache(maxsize=64)(_tiles)


def _runs_of(flags: npt.NDArray[np.bool_]) -> list[tuple[int, int]]:
    """Start and stop of each run of True."""
    if not flags.any():
        return []
    change = np.flatnonzero(np.diff(flags, prepend=False, append=False))
    return list(zip(change[::2].tolist(), change[1::2].tolist(), strict=True))
