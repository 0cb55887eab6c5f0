"""Block-sparse patterns."""

from functools import lru_cache
from typing import final

import numpy as np
import torch
from torch import Tensor

from regard.attention.check import check_integer, check_tensor
from regard.attention.engine.tracing import array
from regard.attention.patterns.intervals import Bools, Intervals, Ints
from regard.attention.patterns.pattern import Pattern
from regard.attention.patterns.schedule import Blocks, KeyRanges
from regard.attention.value import tensor_field, value
from regard.errors import ConfigError, ShapeError


@final
@value
class BlockSparse(Pattern):
    """Block-sparse attention: the query at position i sees key j where layout[i // block_size, j // block_size].

    Args:
        layout: booleans, (query blocks, key blocks), or (H, query blocks, key blocks) for one per head.
        block_size: number of positions along each side of a block, >= 1.

    Raises:
        ShapeError: a layout that is not boolean, not 2D or 3D, or empty; in a call, positions that the layout does not
            cover (with a `query_start` for each sequence, queries outside the layout see nothing instead).
        ConfigError: a block size below 1.

    Source: Child et al. 2019, arXiv 1904.10509, section 5.4; Zaheer et al. 2020, arXiv 2007.14062, appendix D.

    >>> print(BlockSparse(torch.tensor([[True, False], [True, True]]), block_size=2).draw(queries=4, keys=4))
    ██··
    ██··
    ████
    ████
    """

    layout: Tensor = tensor_field("Hij")
    block_size: int

    def __post_init__(self) -> None:
        check_tensor("BlockSparse", "layout", self.layout)
        if self.layout.dtype != torch.bool or self.layout.dim() not in (2, 3) or not self.layout.numel():
            raise ShapeError(
                f"BlockSparse: layout is {self.layout.dtype} of shape {tuple(self.layout.shape)}; expected torch.bool "
                "of shape (query blocks, key blocks) or (heads, query blocks, key blocks)"
            )
        check_integer("BlockSparse", "block_size", self.block_size, 1)

    def check(self, query_start: int | None, num_queries: int, key_start: int, num_keys: int) -> None:
        for name, axis, start, count in (("query", -2, query_start, num_queries), ("key", -1, key_start, num_keys)):
            covered = self.layout.shape[axis] * self.block_size
            if start is not None and (start < 0 or start + count > covered):
                raise ShapeError(
                    f"BlockSparse: the layout covers positions 0 to {covered - 1} of the {name} axis, but the call has "
                    f"{start} to {start + count - 1}; enlarge the layout, or change {name}_start"
                )

    def visible(self, query_BL: Tensor, key_S: Tensor) -> Tensor:
        rows, columns = (
            torch.div(x, self.block_size, rounding_mode="floor").clamp(0, n - 1)
            for x, n in zip((query_BL, key_S), self.layout.shape[-2:], strict=True)
        )
        layout_Hij = self.layout if self.layout.dim() == 3 else self.layout[None]
        seen_HBLS = layout_Hij[:, rows][..., columns]
        covered = (query_BL >= 0) & (query_BL < self.layout.shape[-2] * self.block_size)
        return (seen_HBLS & covered[..., None]).transpose(0, 1)

    def key_ranges(self, blocks: Blocks) -> KeyRanges:
        layout = array(self.layout).reshape(-1, *self.layout.shape[-2:])
        edges = np.arange(layout.shape[2] + 1, dtype=np.int64) * self.block_size
        first, last = (np.clip(x // self.block_size, 0, layout.shape[1] - 1) for x in (blocks.first, blocks.last))
        some = _any_between(np.asarray(layout.any(0)), first, last)
        every = ~_any_between(~np.asarray(layout.all(0)), first, last)
        covered = (blocks.first >= 0) & (blocks.last < layout.shape[1] * self.block_size)
        every &= covered[:, None]
        return KeyRanges(Intervals.of_grid(some, edges), Intervals.of_grid(every, edges))


@final
@value
class RandomBlocks(Pattern):
    """Random block-sparse attention: each query block sees `count` key blocks, drawn without replacement.

    Args:
        seed: seed of the draw, >= 0; the same seed gives the same pattern on every machine.
        length: number of positions; later positions neither see nor are seen.
        count: number of key blocks that a query block sees, >= 0.
        block_size: number of positions along each side of a block, >= 1.

    Raises:
        ConfigError: a seed or count below 0, a length or block size below 1, or a count above the blocks in length.

    Source: Zaheer et al. 2020, arXiv 2007.14062, section 2 and appendix D.

    >>> print(RandomBlocks(seed=7, length=8, count=1, block_size=2).draw(queries=8, keys=8))
    ██······
    ██······
    ······██
    ······██
    ██······
    ██······
    ····██··
    ····██··
    """

    seed: int
    length: int
    count: int = 3
    block_size: int = 64

    def __post_init__(self) -> None:
        for name, minimum in (("seed", 0), ("length", 1), ("count", 0), ("block_size", 1)):
            check_integer("RandomBlocks", name, getattr(self, name), minimum)
        if self.count > self.num_blocks:
            raise ConfigError(
                f"RandomBlocks: count={self.count} must be at most the {self.num_blocks} blocks of "
                f"{self.block_size} in length={self.length}"
            )

    @property
    def num_blocks(self) -> int:
        """Number of blocks along each side."""
        return -(-self.length // self.block_size)

    def visible(self, query_BL: Tensor, key_S: Tensor) -> Tensor:
        chosen = torch.tensor(_draw(self.seed, self.num_blocks, self.count).tolist(), device=key_S.device)
        inside = ((x >= 0) & (x < self.length) for x in (query_BL, key_S))
        rows, columns = (torch.div(x, self.block_size, rounding_mode="floor") for x in (query_BL, key_S))
        drawn_BLC = chosen.reshape(self.num_blocks, self.count)[rows.clamp(0, self.num_blocks - 1)]
        seen_BLS = (drawn_BLC[..., None] == columns).any(2)
        query_inside, key_inside = inside
        return (seen_BLS & query_inside[..., None] & key_inside)[:, None]

    def key_ranges(self, blocks: Blocks) -> KeyRanges:
        size, n = self.block_size, self.num_blocks
        first, last = (np.clip(x // size, 0, n - 1) for x in (blocks.first, blocks.last))
        drawn = _draw(self.seed, n, self.count)
        inside = Intervals.of([0], [self.length], len(blocks))
        some = every = Intervals.of(drawn[first] * size, (drawn[first] + 1) * size, len(blocks)) & inside
        for step in range(1, int((last - first).max()) + 1):
            row = np.minimum(first + step, last)
            more = Intervals.of(drawn[row] * size, (drawn[row] + 1) * size, len(blocks)) & inside
            some, every = some | more, every & more
        outside = (blocks.first < 0) | (blocks.last >= self.length)
        return KeyRanges(some, Intervals.nothing(len(blocks)).where(outside, every))


@lru_cache(maxsize=64)
def _draw(seed: int, blocks: int, count: int) -> Ints:
    """Draw `count` different blocks for each block, ascending, (blocks, count).

    Uses raw generator words, which are the same in every NumPy version.
    """
    words = np.random.Philox(key=seed).random_raw(blocks * count).reshape(blocks, count)
    drawn = np.empty((blocks, count), dtype=np.int64)
    for i in range(count):
        pick = (words[:, i] % np.uint64(blocks - i)).astype(np.int64)
        for j in range(i):  # the pick indexes the blocks not drawn yet: skip the drawn ones, in ascending order
            pick += pick >= drawn[:, j]
        drawn[:, i] = pick
        drawn[:, : i + 1].sort(axis=1)
    return drawn


def _any_between(grid: Bools, first: Ints, last: Ints) -> Bools:
    """Whether any of rows first[i] to last[i] of the grid is True, (len(first), columns)."""
    total = np.vstack([np.zeros((1, grid.shape[1]), dtype=np.int64), grid.cumsum(0)])
    return np.asarray(total[last + 1] > total[first])
