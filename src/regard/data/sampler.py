"""Batch sampler: batches of rows of similar size in random order.

Batches depend on the seed and the epoch alone, not on the number of processes, so that a run can be resumed on another
number of processes with the same batches. Blocks of adjacent rows are shuffled, and rows are sorted by size within
pools of blocks, so that time and memory grow with the number of blocks only.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, final

import numpy as np

from regard.errors import ConfigError

BLOCK = 256  # adjacent rows that are shuffled as one block
POOL = 256  # blocks whose rows are sorted together

Rows = np.ndarray[Any, np.dtype[np.int64]]
Sizes = Callable[[Rows], np.ndarray[Any, Any]]  # of rows by number: (n,) numbers, or (n, k), sorted by the first column


@final
@dataclass
class Position:
    """The position of the next batch, which checkpoints store."""

    epoch: int = 0
    pool: int = 0
    batch: int = 0  # in its pool


@final
class BatchSampler:
    """A sampler of batches whose size, padding included, is at most a budget.

    Args:
        count: number of rows.
        sizes: function from row numbers to sizes (n,), or (n, k) with the size in the first column; further columns
            order rows of equal size.
        budget: maximum of the number of rows of a batch times the largest size among them.
        seed: of the random order.

    Raises:
        ConfigError: no rows.
    """

    def __init__(self, count: int, sizes: Sizes, *, budget: int, seed: int) -> None:
        if count < 1:
            raise ConfigError(f"count={count}: no rows to draw batches from; expected at least one")
        self.count, self.sizes, self.budget, self.seed = count, sizes, budget, seed
        self._cached: tuple[tuple[int, int], list[Rows]] = ((-1, -1), [])

    @property
    def pools(self) -> int:
        """Pools of an epoch."""
        return -(-self.count // (BLOCK * POOL))

    def pool(self, epoch: int, number: int) -> list[Rows]:
        """The batches of a pool, in order.

        Raises:
            ConfigError: a row that is larger than the budget.
        """
        if self._cached[0] == (epoch, number):
            return self._cached[1]
        blocks = np.random.default_rng([self.seed, epoch]).permutation(-(-self.count // BLOCK))
        chosen = np.sort(blocks[number * POOL : (number + 1) * POOL])
        rows = (chosen[:, None] * BLOCK + np.arange(BLOCK)).reshape(-1)
        rows = rows[rows < self.count]
        keys = self.sizes(rows).reshape(len(rows), -1)
        largest = int(keys[:, 0].max())
        if largest > self.budget:
            raise ConfigError(
                f"a row has {largest} tokens with its end token, and a batch at most {self.budget}; raise "
                "batch_tokens, or lower max_tokens"
            )
        random = np.random.default_rng([self.seed, epoch, number])
        # Rows of equal size are shuffled, so that the rows of a batch change between epochs.
        order = np.lexsort((random.random(len(rows)), *keys.T[::-1]))
        batches = np.split(rows[order], _cuts(keys[order, 0], self.budget))
        shuffled = [batches[i] for i in random.permutation(len(batches))]
        self._cached = ((epoch, number), shuffled)
        return shuffled

    def epoch(self, number: int) -> Iterator[Rows]:
        """The batches of an epoch, in order: every row once."""
        for pool in range(self.pools):
            yield from self.pool(number, pool)

    def take(self, position: Position, count: int) -> list[Rows]:
        """The next `count` batches, or fewer at the end of a pool; advances `position`."""
        batches = self.pool(position.epoch, position.pool)[position.batch : position.batch + count]
        position.batch += len(batches)
        if position.batch >= len(self.pool(position.epoch, position.pool)):
            position.pool, position.batch = position.pool + 1, 0
            if position.pool >= self.pools:
                position.epoch, position.pool = position.epoch + 1, 0
        return batches


def _cuts(sizes: np.ndarray[Any, Any], budget: int) -> list[int]:
    """Indices at which rows of ascending size are split into batches within the budget."""
    cuts, start = [], 0
    for i, size in enumerate(sizes.tolist()):
        if (i + 1 - start) * size > budget:
            cuts.append(i)
            start = i
    return cuts
