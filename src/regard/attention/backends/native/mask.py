"""A pattern as the native kernels read it: a band, key lengths, documents, and bits for everything else."""

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
from regard.attention.value import holds_tensors, restrict

SIDE = 64  # rows and columns of a tile of the kernels
EMPTY, FULL = -1, -2
NO_BOUND = 2**63 - 1
MIN_PART = 16  # minimum rows and columns of a part: one vector of the widest instruction set


class NativeMask(NamedTuple):
    """Conditions of a mask: a pair is visible where all of them hold. Rows and columns count from 0."""

    min_offset: int = -NO_BOUND  # smallest visible column - row - start
    max_offset: int = NO_BOUND  # largest
    start: int = 0  # query_start - key_start
    starts: Tensor | None = None  # (B,): instead of `start`
    lengths: Tensor | None = None  # (B,), columns
    query_ids: Tensor | None = None  # (B or 1, L)
    key_ids: Tensor | None = None  # (B or 1, S)
    tiles: Tensor | None = None  # (B or 1, H or 1, blocks, panels): EMPTY, FULL, or the number of its bits
    bits: Tensor | None = None  # (tiles, SIDE columns): a word of SIDE rows


class Part(NamedTuple):
    """Rows and columns of a call that form an independent attention, and their mask."""

    rows: slice
    columns: slice
    mask: NativeMask


ALL = slice(None)


def native_parts(call: Call) -> list[Part]:
    """Independent attentions that a call's pattern splits into; usually one.

    With a dilated window, positions of equal remainder modulo the dilation attend only to each other, in a plain
    window.
    """
    spec, rows, columns = call.spec, call.query.shape[2], call.key.shape[2]
    parts = list(conjuncts(spec.pattern))
    dilated = [part for part in parts if isinstance(part, Dilated) and part.dilation > 1]
    # A bias, a prior and dropout use row and column numbers of the whole call.
    plain = spec.bias is None and not spec.dropout and getattr(spec.normalizer, "prior", None) is None
    banded = all(isinstance(part, Full | Causal | SlidingWindow) for part in parts if part not in dilated)
    if len(dilated) != 1 or not plain or not banded or isinstance(call.query_start, Tensor):
        return [Part(ALL, ALL, native_mask(call))]
    dilation = dilated[0].dilation
    if MIN_PART * dilation > min(rows, columns):
        return [Part(ALL, ALL, native_mask(call))]
    min_offset, max_offset = _band(dilated[0], 1)
    for part in parts:
        if isinstance(part, Causal | SlidingWindow):
            low, high = _band(part, dilation)
            min_offset, max_offset = max(min_offset, low), min(max_offset, high)
    parts_of_call = []
    for row in range(dilation):
        column = (row + call.query_start - call.key_start) % dilation
        start = (row + call.query_start - call.key_start - column) // dilation
        parts_of_call.append(
            Part(slice(row, None, dilation), slice(column, None, dilation), NativeMask(min_offset, max_offset, start))
        )
    return parts_of_call


def _band(part: Causal | SlidingWindow | Dilated, step: int) -> tuple[int, int]:
    """Smallest and largest distance from a query to a key, in steps of `step` positions."""
    if isinstance(part, Causal):
        return -NO_BOUND, 0
    min_offset = -NO_BOUND if part.left is None else -(part.left // step)
    return min_offset, NO_BOUND if part.right is None else part.right // step


def native_mask(call: Call) -> NativeMask:
    """The pattern of a call as one mask."""
    min_offset, max_offset, lengths, ids, rest = -NO_BOUND, NO_BOUND, list[Tensor](), list[Documents](), list[Pattern]()
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
        cached = not (holds_tensors(pattern) or isinstance(start, Tensor))
        tiles, bits = (_tiles_cached if cached else _tiles)(
            pattern, call.query.shape[2], call.key.shape[2], start, call.key_start
        )
        mask = mask._replace(tiles=tiles, bits=bits)
    return mask


def conjuncts(pattern: Pattern) -> Iterator[Pattern]:
    """The operands of a pattern's conjunction (&), flattened."""
    if isinstance(pattern, And):
        yield from conjuncts(pattern.left)
        yield from conjuncts(pattern.right)
    else:
        yield pattern


def _tiles(
    pattern: Pattern, num_queries: int, num_keys: int, query_start: int | Tensor, key_start: int
) -> tuple[Tensor, Tensor]:
    """Tile kinds (empty, full or an index of bits), and the bits of the mixed tiles."""
    schedule = pattern.schedule(num_queries, num_keys, query_start=query_start, key_start=key_start, block=SIDE)
    query_BL, key_S = positions(num_queries, num_keys, query_start, key_start, torch.device("cpu"))
    panels = -(-num_keys // SIDE)
    # A panel only partly covered by a run is mixed.
    cuts = list[
        tuple[int, int, int, npt.NDArray[Any]]
    ]()  # block, first panel, last + 1, booleans (b, h, rows, columns)
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
            seen = restrict(pattern, rows, columns).visible(query_BL[:, rows], key_S[columns])
            shape = (*seen.shape[:2], rows.stop - rows.start, columns.stop - columns.start)
            cuts.append((block, first, last, array(seen.expand(shape))))
    shape = np.broadcast_shapes((1, 1), *(x.shape[:2] for *_, x in cuts))
    tiles = np.broadcast_to(base, (*shape, *base.shape)).copy()
    words, count = list[npt.NDArray[Any]](), 0
    for block, first, last, grid in cuts:
        height, width = grid.shape[2:]
        padded = np.zeros((*shape, (last - first) * SIDE, SIDE), dtype=bool)
        padded[:, :, :width, :height] = np.broadcast_to(grid, (*shape, height, width)).transpose(0, 1, 3, 2)
        packed = np.packbits(padded, axis=-1, bitorder="little").view("<u8")[..., 0]
        packed = packed.reshape(*shape, last - first, SIDE)
        area = np.minimum(num_keys - np.arange(first, last) * SIDE, SIDE) * height
        total = padded.reshape(*shape, last - first, -1).sum(-1)
        some = (total > 0) & (total < area)
        here = tiles[:, :, block, first:last]
        here[total == 0], here[total == area] = EMPTY, FULL
        here[some] = np.arange(count, count + int(some.sum()))
        count += int(some.sum())
        words.append(packed[some])
    bits = np.concatenate(words) if count else np.zeros((1, SIDE), dtype=np.uint64)
    return torch.from_numpy(tiles), torch.from_numpy(bits.astype(np.uint64).view(np.int64))


_tiles_cached = lru_cache(maxsize=64)(_tiles)


def _runs_of(chosen: npt.NDArray[np.bool_]) -> list[tuple[int, int]]:
    """Start and stop of each run of True."""
    if not chosen.any():
        return []
    change = np.flatnonzero(np.diff(chosen, prepend=False, append=False))
    return list(zip(change[::2].tolist(), change[1::2].tolist(), strict=True))
