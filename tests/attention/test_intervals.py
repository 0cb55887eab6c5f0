"""The algebra of intervals against sets of Python integers."""

import itertools

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from regard.attention.patterns.intervals import FAR, Intervals

SPACE = range(-3, 20)
bounds = st.lists(st.tuples(st.integers(-3, 19), st.integers(0, 5)), max_size=4)
pairs = st.integers(1, 4).flatmap(lambda n: st.tuples(*(st.lists(bounds, min_size=n, max_size=n),) * 2))


def intervals(blocks: list[list[tuple[int, int]]]) -> Intervals:
    """A union, one interval at a time, so that overlaps are allowed."""
    total = Intervals.nothing(len(blocks))
    for i in range(max(map(len, blocks))):
        spans = [block[i] if i < len(block) else (FAR, 0) for block in blocks]
        total = total | Intervals.of([[s] for s, _ in spans], [[s + n] for s, n in spans], len(blocks))
    return total


def sets(x: Intervals) -> list[set[int]]:
    """Each block's members within SPACE; checks that the intervals are tidy."""
    for starts, stops in zip(x.starts.tolist(), x.stops.tolist(), strict=True):
        some = [(a, b) for a, b in zip(starts, stops, strict=True) if a < b]
        assert some == sorted(some)
        assert all(first[1] <= second[0] for first, second in itertools.pairwise(some))
        assert [(FAR, FAR)] * (len(starts) - len(some)) == list(zip(starts, stops, strict=True))[len(some) :]
    return [
        {p for p in SPACE if any(a <= p < b for a, b in zip(starts, stops, strict=True))}
        for starts, stops in zip(x.starts.tolist(), x.stops.tolist(), strict=True)
    ]


@given(pairs)
def test_algebra(blocks) -> None:
    x, y = map(intervals, blocks)
    a, b = sets(x), sets(y)
    everything = set(SPACE)
    assert a == [{p for s, n in block for p in range(s, s + n) if p in SPACE} for block in blocks[0]]
    assert sets(x & y) == [i & j for i, j in zip(a, b, strict=True)]
    assert sets(x | y) == [i | j for i, j in zip(a, b, strict=True)]
    assert sets(~x) == [everything - i for i in a]
    assert sets(~~x) == a
    assert sets(x & ~y) == [i - j for i, j in zip(a, b, strict=True)]
    inside = Intervals.of([SPACE.start], [SPACE.stop], len(a))
    assert (x & inside).size().tolist() == [len(i) for i in a]
    chosen = np.arange(len(a)) % 2 == 0
    assert sets(x.where(chosen, y)) == [i if k else j for i, j, k in zip(a, b, chosen, strict=True)]


@given(st.integers(1, 4), st.lists(st.booleans(), min_size=1, max_size=12))
def test_grid(blocks: int, cells: list[bool]) -> None:
    edges = np.cumsum([-3, *(1 + i % 3 for i in range(len(cells)))])
    grid = np.array([np.roll(cells, i) for i in range(blocks)])
    found = sets(Intervals.of_grid(grid, edges))
    expected = [
        {p for i in range(len(cells)) if row[i] for p in range(edges[i], edges[i + 1]) if p in SPACE} for row in grid
    ]
    assert found == expected


def test_everything_and_nothing() -> None:
    assert sets(Intervals.everything(2)) == [set(SPACE)] * 2
    assert sets(Intervals.nothing(2)) == [set()] * 2
    assert sets(~Intervals.nothing(1)) == [set(SPACE)]
