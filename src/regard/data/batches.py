"""Which rows go together, and rows as padded tensors.

Rows of like length stand together, so that little of a batch is padding; the order of batches is random. Both are
settled by a seed and the number of the epoch alone, so that a resumed run goes on with the batches it would have had.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from regard.data.store import PairStore
from regard.errors import ConfigError

IGNORED = -100  # the label that PyTorch's cross entropy leaves out


class Batch(NamedTuple):
    """Pairs as a model takes them."""

    source: Tensor  # (B, S): ids, end mark, padding
    target_in: Tensor  # (B, T): start mark, ids, padding
    target_out: Tensor  # (B, T): ids, end mark, then IGNORED
    tokens: int  # target tokens that are not padding


def epoch_batches(store: PairStore, *, tokens: int, seed: int, epoch: int) -> list[np.ndarray[Any, Any]]:
    """The rows of every batch of an epoch.

    Args:
        store: the pairs.
        tokens: at most so many, padding included, in a batch's sources, and in its targets, end marks counted.
        seed: settles the order, together with the epoch.
        epoch: its number.

    Returns:
        Row numbers (B,) by batch; every row occurs once.

    Raises:
        ConfigError: a row that is longer than `tokens`.
    """
    source, target = np.asarray(store.source_lengths), np.asarray(store.target_lengths)
    longest = np.maximum(source, target) + 1
    if len(store) and int(longest.max()) > tokens:
        raise ConfigError(
            f"tokens={tokens} is less than the longest row, {int(longest.max())} tokens with its end mark; "
            f"raise tokens, or lower max_tokens"
        )
    random = np.random.default_rng([seed, epoch])
    # Equal rows stand in random order, so that a row meets others in every epoch.
    order = np.lexsort((random.random(len(store)), source, longest))
    ends = _ends(longest[order], tokens)
    batches = np.split(order, ends[:-1])
    return [batches[i] for i in random.permutation(len(batches))] if len(store) else []


def _ends(lengths: np.ndarray[Any, Any], tokens: int) -> list[int]:
    """Where to cut rows of ascending length so that rows x longest stays within `tokens`."""
    ends, start = [], 0
    for i, length in enumerate(lengths.tolist()):
        if (i + 1 - start) * length > tokens:
            ends.append(i)
            start = i
    return [*ends, len(lengths)]


def collate(store: PairStore, rows: Sequence[int] | np.ndarray[Any, Any], *, pad: int, bos: int, eos: int) -> Batch:
    """The rows as tensors, padded at the right to the longest.

    Args:
        store: the pairs.
        rows: row numbers, (B,).
        pad: fills sources and target_in.
        bos: what every target_in starts with.
        eos: what every source and target_out ends with.

    Returns:
        A `Batch`.
    """
    pairs = [store.pair(int(row)) for row in rows]
    sources = max(len(source) for source, _ in pairs) + 1
    targets = max(len(target) for _, target in pairs) + 1
    source_ids = np.full((len(pairs), sources), pad, np.int64)
    target_in = np.full((len(pairs), targets), pad, np.int64)
    target_out = np.full((len(pairs), targets), IGNORED, np.int64)
    target_in[:, 0] = bos
    for i, (source, target) in enumerate(pairs):
        source_ids[i, : len(source)] = source
        source_ids[i, len(source)] = eos
        target_in[i, 1 : len(target) + 1] = target
        target_out[i, : len(target)] = target
        target_out[i, len(target)] = eos
    count = sum(len(target) + 1 for _, target in pairs)
    return Batch(torch.from_numpy(source_ids), torch.from_numpy(target_in), torch.from_numpy(target_out), count)
