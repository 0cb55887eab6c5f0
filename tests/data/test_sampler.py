"""Every row is in one batch of an epoch; batches are full, little padded, and settled by seed and epoch."""

import dataclasses

import numpy as np
import pytest

from regard.data import sampler as module
from regard.data.sampler import BatchSampler, Position

RANDOM = np.random.default_rng(0)
SOURCE = np.minimum(1 + RANDOM.exponential(20, 5003).astype(int), 90)
TARGET = np.maximum(1, SOURCE + RANDOM.integers(-3, 4, len(SOURCE)))
LONGEST = np.maximum(SOURCE, TARGET) + 1


def made(seed: int = 3, budget: int = 1024) -> BatchSampler:
    return BatchSampler(len(SOURCE), lambda rows: np.stack([LONGEST[rows], SOURCE[rows]], 1), budget=budget, seed=seed)


def lists(sampler: BatchSampler, epoch: int = 0) -> list[list[int]]:
    return [batch.tolist() for batch in sampler.epoch(epoch)]


@pytest.fixture(params=[(256, 256), (16, 40)], ids=["one pool", "many pools"], autouse=True)
def sizes(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "BLOCK", request.param[0])
    monkeypatch.setattr(module, "POOL", request.param[1])


@pytest.mark.parametrize("budget", [100, 1024, 10**6])
def test_every_row_once_and_no_batch_too_large(budget: int) -> None:
    batches = lists(made(budget=budget))
    assert sorted(row for batch in batches for row in batch) == list(range(len(SOURCE)))
    assert max(len(batch) * int(LONGEST[batch].max()) for batch in batches) <= budget


def test_little_is_padding() -> None:
    real = padded = 0
    for batch in made().epoch(0):
        for lengths in (SOURCE[batch] + 1, TARGET[batch] + 1):
            real, padded = real + int(lengths.sum()), padded + len(batch) * int(lengths.max())
    assert 1 - real / padded < (0.05 if made().pools == 1 else 0.2)


def test_seed_and_epoch_settle_the_batches() -> None:
    assert lists(made(3), 1) == lists(made(3), 1)
    assert lists(made(3), 1) != lists(made(3), 2)
    assert lists(made(3), 1) != lists(made(4), 1)
    assert {frozenset(batch) for batch in lists(made(), 1)} != {frozenset(batch) for batch in lists(made(), 2)}


def test_the_order_of_batches_is_random() -> None:
    means = [TARGET[batch].mean() for batch in made().epoch(0)]
    assert abs(np.corrcoef(means, range(len(means)))[0, 1]) < 0.3


@pytest.mark.parametrize("count", [1, 3])
def test_a_run_takes_every_batch_and_goes_on_from_a_position(count: int) -> None:
    sampler, position, taken = made(), Position(), []
    positions = []
    while position.epoch < 2:
        positions.append(dataclasses.replace(position))
        taken.append([rows.tolist() for rows in sampler.take(position, count)])
    assert [batch for batches in taken for batch in batches] == lists(sampler, 0) + lists(sampler, 1)
    assert all(1 <= len(batches) <= count for batches in taken)
    for at in (0, len(taken) // 3, len(taken) - 1):
        again = dataclasses.replace(positions[at])
        assert [rows.tolist() for rows in made().take(again, count)] == taken[at]


def test_one_row() -> None:
    sampler = BatchSampler(1, lambda rows: np.ones(len(rows), int), budget=1, seed=0)
    position = Position()
    assert [sampler.take(position, 2)[0].tolist() for _ in range(3)] == [[0]] * 3
    assert position == Position(epoch=3)
