"""Every row is in one batch of an epoch; batches are full, little padded, and settled by seed and epoch."""

import random
from pathlib import Path

import numpy as np
import pytest
import torch

from regard.data.batches import collate, epoch_batches
from regard.data.store import PairStore


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> PairStore:
    random_ = random.Random(0)
    lengths = [1 + int(random_.expovariate(1 / 20)) % 90 for _ in range(5003)]
    pairs = [([7] * length, [8] * max(1, length + random_.randint(-3, 3))) for length in lengths]
    return PairStore.write(tmp_path_factory.mktemp("store") / "train", pairs)


def lists(batches: list[np.ndarray]) -> list[list[int]]:
    return [batch.tolist() for batch in batches]


@pytest.mark.parametrize("tokens", [100, 1024, 10**6])
def test_every_row_once_and_no_batch_too_large(store: PairStore, tokens: int) -> None:
    batches = epoch_batches(store, tokens=tokens, seed=3, epoch=0)
    assert sorted(np.concatenate(batches).tolist()) == list(range(len(store)))
    longest = np.maximum(store.source_lengths, store.target_lengths) + 1
    assert max(len(batch) * int(longest[batch].max()) for batch in batches) <= tokens


def test_little_is_padding(store: PairStore) -> None:
    real = padded = 0
    for batch in epoch_batches(store, tokens=1024, seed=3, epoch=0):
        for lengths in (store.source_lengths[batch] + 1, store.target_lengths[batch] + 1):
            real, padded = real + int(lengths.sum()), padded + len(batch) * int(lengths.max())
    assert 1 - real / padded < 0.05


def test_seed_and_epoch_settle_the_batches(store: PairStore) -> None:
    def made(seed: int, epoch: int) -> list[list[int]]:
        return lists(epoch_batches(store, tokens=1024, seed=seed, epoch=epoch))

    assert made(3, 1) == made(3, 1)
    assert made(3, 1) != made(3, 2)
    assert made(3, 1) != made(4, 1)
    assert {frozenset(batch) for batch in made(3, 1)} != {frozenset(batch) for batch in made(3, 2)}


def test_the_order_of_batches_is_random(store: PairStore) -> None:
    means = [store.target_lengths[batch].mean() for batch in epoch_batches(store, tokens=1024, seed=3, epoch=0)]
    assert abs(np.corrcoef(means, range(len(means)))[0, 1]) < 0.3


def test_rows_become_tensors(tmp_path: Path) -> None:
    store = PairStore.write(tmp_path / "s", [([5, 6], [7]), ([9], [10, 11, 12]), ([3], [4])])
    batch = collate(store, [1, 0], pad=0, bos=1, eos=2)
    assert batch.inputs.tolist() == [[9, 2, 0], [5, 6, 2]]
    assert batch.targets.tolist() == [[1, 10, 11, 12], [1, 7, 0, 0]]
    assert batch.labels.tolist() == [[10, 11, 12, 2], [7, 2, -100, -100]]
    assert batch.tokens == 6
    assert {x.dtype for x in batch[:3]} == {torch.int64}


def test_no_rows_no_batches(tmp_path: Path) -> None:
    assert epoch_batches(PairStore.write(tmp_path / "s", []), tokens=10, seed=0, epoch=0) == []
