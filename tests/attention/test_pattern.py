"""Every pattern against a picture drawn by hand, and what combinations, schedules and densities promise."""

import numpy as np
import pytest
import torch

import regard as rg
from regard.attention.patterns.block_pattern import _draw
from regard.attention.patterns.pattern import Pattern

LAYOUT = torch.tensor([[True, False, True], [False, True, False]])

PICTURES: list[tuple[Pattern, dict[str, int], str]] = [
    (rg.Full(), {"queries": 2, "keys": 3}, "███ ███"),
    (rg.Causal(), {"queries": 3, "keys": 3}, "█·· ██· ███"),
    (rg.Causal(), {"queries": 2, "keys": 5}, "████· █████"),  # the last query stands on the last key
    (rg.Causal(), {"queries": 2, "keys": 5, "query_start": 0}, "█···· ██···"),
    (rg.Causal(), {"queries": 4, "keys": 2}, "·· ·· █· ██"),  # two queries stand before every key
    (rg.Causal(), {"queries": 2, "keys": 3, "key_start": 5, "query_start": 5}, "█·· ██·"),
    (rg.SlidingWindow(left=1, right=1), {"queries": 4, "keys": 4}, "██·· ███· ·███ ··██"),
    (rg.SlidingWindow(left=0, right=0), {"queries": 3, "keys": 3}, "█·· ·█· ··█"),
    (rg.SlidingWindow(left=None, right=1), {"queries": 3, "keys": 4, "query_start": 0}, "██·· ███· ████"),
    (rg.SlidingWindow(left=1), {"queries": 3, "keys": 4, "query_start": 1}, "████ ·███ ··██"),
    (rg.Dilated(2, left=1, right=0), {"queries": 5, "keys": 5}, "█···· ·█··· █·█·· ·█·█· ··█·█"),
    (rg.Dilated(3), {"queries": 3, "keys": 6, "query_start": 0}, "█··█·· ·█··█· ··█··█"),
    (rg.Dilated(1, left=1, right=1), {"queries": 3, "keys": 3}, "██· ███ ·██"),
    (rg.Strided(2), {"queries": 3, "keys": 5, "query_start": 0}, "█·█·█ ·█·█· █·█·█"),
    (rg.Strided(2), {"queries": 2, "keys": 2, "query_start": -3}, "·█ █·"),  # before the first position too
    (rg.GlobalTokens([2, 0]), {"queries": 4, "keys": 4}, "████ █·█· ████ █·█·"),
    (rg.GlobalTokens([]), {"queries": 2, "keys": 2}, "·· ··"),
    (rg.GlobalTokens([9]), {"queries": 2, "keys": 2}, "·· ··"),
    (rg.GlobalTokens(range(2)), {"queries": 3, "keys": 3}, "███ ███ ██·"),
    (rg.BlockSparse(LAYOUT, 2), {"queries": 4, "keys": 6, "query_start": 0}, "██··██ ██··██ ··██·· ··██··"),
    (rg.BlockSparse(LAYOUT, 2), {"queries": 2, "keys": 3, "query_start": 1, "key_start": 1}, "█·· ·██"),
    (rg.BlockSparse(torch.stack([LAYOUT, ~LAYOUT]), 1), {"queries": 2, "keys": 3, "query_start": 0}, "█·█ ·█·"),
    (rg.RandomBlocks(1, length=4, count=2, block_size=2), {"queries": 4, "keys": 4}, "████ ████ ████ ████"),
    (rg.RandomBlocks(1, length=4, count=0, block_size=2), {"queries": 2, "keys": 4}, "···· ····"),
    (rg.RandomBlocks(1, length=2, count=1, block_size=2), {"queries": 3, "keys": 3, "query_start": 0}, "██· ██· ···"),
    (rg.PrefixLM(torch.tensor([3, 1])), {"queries": 4, "keys": 5, "query_start": 1}, "███·· ███·· ████· █████"),
    (rg.KeyLengths(torch.tensor([2, 4])), {"queries": 2, "keys": 4}, "██·· ██··"),
    (rg.KeyLengths(torch.tensor([6])), {"queries": 1, "keys": 4, "key_start": 3}, "███·"),
    (
        rg.Documents(torch.tensor([[7, 7, 3]]), torch.tensor([[3, 7, 7, 3]])),
        {"queries": 3, "keys": 4},
        "·██· ·██· █··█",
    ),
    (rg.Mask(torch.tensor([[True, False], [False, False]])), {"queries": 2, "keys": 2}, "█· ··"),
    (rg.Mask(torch.tensor([True, False])), {"queries": 2, "keys": 2}, "█· █·"),
    (rg.Mask.from_hidden(torch.tensor([True, False])), {"queries": 2, "keys": 2}, "·█ ·█"),
    (rg.Around(torch.tensor([0.5, 3.0]), left=1, right=2), {"queries": 2, "keys": 6}, "███··· ··████"),
    (rg.Around(torch.tensor([2]), left=0, right=0), {"queries": 2, "keys": 3}, "··█ ··█"),
    (rg.Around(torch.tensor([float("nan"), 1.0]), left=0, right=9), {"queries": 2, "keys": 3}, "··· ·██"),
    (rg.Causal() & rg.SlidingWindow(left=1), {"queries": 4, "keys": 4}, "█··· ██·· ·██· ··██"),
    (
        rg.Causal() & (rg.Strided(3) | rg.SlidingWindow(left=1)),
        {"queries": 5, "keys": 5},
        "█···· ██··· ·██·· █·██· ·█·██",
    ),
    (~rg.Causal(), {"queries": 3, "keys": 3}, "·██ ··█ ···"),
    (~(rg.Causal() | rg.GlobalTokens([2])), {"queries": 3, "keys": 4, "query_start": 0}, "·█·█ ···█ ····"),
]


@pytest.mark.parametrize(
    ("pattern", "where", "picture"), PICTURES, ids=lambda x: str(x) if isinstance(x, Pattern) else ""
)
def test_picture(pattern: Pattern, where: dict[str, int], picture: str) -> None:
    assert pattern.draw(**where).split("\n") == picture.split()
    heads = pattern.visible(*_positions(**where))
    assert pattern.density(**where) == pytest.approx(float(heads.double().mean()), abs=1e-12)
    if heads.shape[:2].numel() == 1:
        assert pattern.density(**where) == pytest.approx(picture.count("█") / (picture.count("█") + picture.count("·")))


def _positions(queries: int, keys: int, query_start: int | None = None, key_start: int = 0):
    start = key_start + keys - queries if query_start is None else query_start
    return torch.arange(start, start + queries)[None], torch.arange(key_start, key_start + keys)


def test_each_sequence_has_its_own_lengths() -> None:
    queries, keys = torch.arange(3)[None], torch.arange(4)
    lengths = rg.KeyLengths(torch.tensor([2, 4])).visible(queries, keys)
    assert lengths.expand(2, 1, 3, 4).sum((1, 2, 3)).tolist() == [6, 12]
    prefix = rg.PrefixLM(torch.tensor([0, 3])).visible(queries, keys)
    assert prefix.sum((1, 2, 3)).tolist() == [6, 9]


def test_each_head_has_its_own_layout() -> None:
    seen = rg.BlockSparse(torch.stack([LAYOUT, ~LAYOUT]), 1).visible(torch.arange(2)[None], torch.arange(3))
    assert torch.equal(seen, torch.stack([LAYOUT, ~LAYOUT])[None])


def test_each_sequence_starts_where_it_likes() -> None:
    seen = rg.Causal().visible(torch.tensor([[0, 1], [3, 4]]), torch.arange(5))
    assert seen.sum(-1).squeeze(1).tolist() == [[1, 2], [4, 5]]


def test_positions_beyond_a_layout_see_nothing_where_starts_differ() -> None:
    pattern = rg.BlockSparse(torch.ones(2, 2, dtype=torch.bool), 2)
    seen = pattern.visible(torch.tensor([[0], [3], [4], [-1]]), torch.arange(4))
    assert seen.any(-1).flatten().tolist() == [True, True, False, False]


def test_random_blocks_are_drawn_without_replacement_once_and_for_all() -> None:
    drawn = _draw(7, 12, 5)
    assert all(len(set(row)) == 5 and sorted(row) == row for row in drawn.tolist())
    assert drawn.max() == 11
    assert np.array_equal(drawn, _draw.__wrapped__(7, 12, 5))
    words = np.random.Philox(key=7).random_raw(12 * 5).reshape(12, 5).tolist()
    for row, picks in zip(drawn.tolist(), words, strict=True):
        left = list(range(12))
        assert row == sorted(left.pop(pick % len(left)) for pick in picks)
    counts = np.bincount(_draw(0, 2000, 10).ravel(), minlength=2000)
    assert 0 <= counts.min() <= counts.max() < 40  # mean 10, standard deviation about 3


@pytest.mark.parametrize(
    ("pattern", "lookback"),
    [
        (rg.Full(), None),
        (rg.Causal(), None),
        (rg.SlidingWindow(left=5), 5),
        (rg.Dilated(3, left=4), 12),
        (rg.SlidingWindow(left=5) & rg.Dilated(3, left=4), 5),
        (rg.SlidingWindow(left=5) | rg.Dilated(3, left=4), 12),
        (rg.Causal() & rg.SlidingWindow(left=5), 5),
        (rg.Causal() | rg.SlidingWindow(left=5), None),
        (~rg.SlidingWindow(left=5), None),
    ],
)
def test_lookback(pattern: Pattern, lookback: int | None) -> None:
    assert pattern.lookback == lookback


def test_printing() -> None:
    a, b, c = rg.Causal(), rg.SlidingWindow(left=2), rg.Strided(3)
    assert str(a & b) == "Causal() & SlidingWindow(left=2)"
    assert str(a & (b | c)) == "Causal() & (SlidingWindow(left=2) | Strided(stride=3))"
    assert str(a | b & c) == "Causal() | SlidingWindow(left=2) & Strided(stride=3)"
    assert str(~(a & b)) == "~(Causal() & SlidingWindow(left=2))"
    assert str(~a & b) == "~Causal() & SlidingWindow(left=2)"
    assert str(rg.KeyLengths(torch.tensor([1, 2]))) == "KeyLengths(lengths=Tensor(2))"
    assert str(rg.GlobalTokens([3, 1, 3])) == "GlobalTokens(positions=(1, 3))"
    assert str(rg.GlobalTokens(torch.tensor([3, 1]))) == "GlobalTokens(positions=(1, 3))"


ANALYTIC = [
    rg.Causal() & rg.SlidingWindow(left=256),
    rg.Causal() & (rg.SlidingWindow(left=100) | rg.GlobalTokens(range(64))),
    rg.Causal() | ~rg.SlidingWindow(left=512, right=512),
    rg.Causal() & (rg.Strided(128) | rg.SlidingWindow(left=128)),
    rg.SlidingWindow(left=64, right=64) | rg.GlobalTokens([0]) | rg.RandomBlocks(seed=3, length=65_536),
]


@pytest.mark.parametrize("pattern", ANALYTIC, ids=str)
def test_a_schedule_never_asks_pair_by_pair(pattern: Pattern, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise AssertionError("the schedule looked at pairs")

    for kind in Pattern.__subclasses__():
        monkeypatch.setattr(kind, "visible", refuse)
    schedule = pattern.schedule(65_536, 65_536)
    assert len(schedule) == 512
    assert 0 < schedule.full_pairs + schedule.mixed_pairs <= 65_536**2
    assert pattern.schedule(65_536, 65_536) is schedule  # from the cache
    assert pattern.schedule(65_536, 65_536, query_start=0) is schedule  # which is where they start
    assert pattern.schedule(65_536, 65_536, query_start=1) is not schedule


def test_the_window_pays_for_the_window_only() -> None:
    schedule = (rg.Causal() & rg.SlidingWindow(left=256)).schedule(65_536, 65_536)
    assert schedule.full_pairs + schedule.mixed_pairs <= 65_536 * (128 + 256 + 1)
    assert schedule.full_pairs >= 65_536 * (256 - 2 * 128)


def test_equal_patterns_share_a_schedule() -> None:
    first = (rg.Causal() & rg.SlidingWindow(left=77)).schedule(300, 300)
    assert (rg.Causal() & rg.SlidingWindow(left=77)).schedule(300, 300) is first
    assert (rg.Causal() & rg.SlidingWindow(left=78)).schedule(300, 300) is not first


def test_data_is_read_again() -> None:
    lengths = torch.tensor([3])
    pattern = rg.Causal() & rg.KeyLengths(lengths)
    first = pattern.schedule(8, 8, block=4)
    assert pattern.schedule(8, 8, block=4) is not first
    lengths[0] = 8  # in place: a cached schedule would hide keys
    second = pattern.schedule(8, 8, block=4)
    assert second.full_pairs + second.mixed_pairs > first.full_pairs + first.mixed_pairs
