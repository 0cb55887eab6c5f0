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

IGNORED = -100  # label of a position that does not count, as in PyTorch's cross entropy


class Batch(NamedTuple):
    """Pairs as a model takes them."""

    inputs: Tensor  # (B, S): source ids, end mark, padding
    lengths: Tensor  # (B,): inputs that are not padding
    targets: Tensor  # (B, T): start mark, ids, padding
    labels: Tensor  # (B, T): ids, end mark, then IGNORED
    tokens: int  # labels that count


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
        pad: fills inputs and targets.
        bos: what each row of targets starts with.
        eos: what each row of inputs and labels ends with.

    Returns:
        A `Batch`.
    """
    pairs = [store.pair(int(row)) for row in rows]
    source_length = max(len(source) for source, _ in pairs) + 1
    target_length = max(len(target) for _, target in pairs) + 1
    inputs = np.full((len(pairs), source_length), pad, np.int64)
    targets = np.full((len(pairs), target_length), pad, np.int64)
    labels = np.full((len(pairs), target_length), IGNORED, np.int64)
    targets[:, 0] = bos
    for i, (source, target) in enumerate(pairs):
        inputs[i, : len(source)] = source
        inputs[i, len(source)] = eos
        targets[i, 1 : len(target) + 1] = target
        labels[i, : len(target)] = target
        labels[i, len(target)] = eos
    count = sum(len(target) + 1 for _, target in pairs)
    lengths = torch.tensor([len(source) + 1 for source, _ in pairs])
    return Batch(torch.from_numpy(inputs), lengths, torch.from_numpy(targets), torch.from_numpy(labels), count)
