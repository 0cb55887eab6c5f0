"""Random pattern expressions: schedules, densities and pictures against `visible`, element by element."""

import itertools

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor

import regard as rg
from regard.attention.patterns.pattern import Pattern, positions
from tests.attention.strategies import COVERED, patterns

SETTINGS = settings(
    max_examples=100,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)


@st.composite
def situations(draw: st.DrawFn) -> tuple[Pattern, dict[str, int], dict[str, int | Tensor], int]:
    batch, heads = draw(st.sampled_from([(1, 1), (2, 3), (3, 1)]))
    sizes = {"queries": draw(st.integers(1, 40)), "keys": draw(st.sampled_from([1, 2, 7, 31, 64, 65, 90]))}
    where: dict[str, int | Tensor] = {}
    where["key_start"] = draw(st.integers(0, COVERED - sizes["keys"]))
    kind = draw(st.sampled_from(["number", "number", "tensor"]))
    last = COVERED - sizes["queries"]
    if kind == "number":
        where["query_start"] = draw(st.integers(0, last))
    else:
        where["query_start"] = torch.tensor(draw(st.lists(st.integers(0, last), min_size=batch, max_size=batch)))
    pattern = draw(patterns(batch, heads, **sizes))
    return pattern, sizes, where, draw(st.sampled_from([1, 3, 8, 16, 128]))


@SETTINGS
@given(situations())
def test_schedule_density_and_picture(situation) -> None:
    pattern, sizes, where, block = situation
    queries, keys = sizes["queries"], sizes["keys"]
    visible = pattern.visible(*positions(queries, keys, **where, device=torch.device("cpu")))
    assert visible.dtype == torch.bool
    every = visible.flatten(0, 1).all(0).expand(queries, keys)
    some = visible.flatten(0, 1).any(0).expand(queries, keys)

    schedule = pattern.schedule(queries, keys, **where, block=block)
    told = torch.zeros(queries, keys, dtype=torch.int64)  # 0 empty, 1 mixed, 2 full
    at = 0
    for rows, runs in schedule:
        assert rows.start == at
        assert rows.stop <= min(at + block, queries)
        at = rows.stop
        assert all(0 <= run.start < run.stop <= keys for run in runs)
        assert all(first.stop <= second.start for first, second in itertools.pairwise(runs))
        for run in runs:
            told[rows, run.start : run.stop] = 2 if run.full else 1
    assert at == queries
    assert bool(every[told == 2].all()), "a pair of a full tile is hidden"
    assert not bool(some[told == 0].any()), "a pair of an empty tile is visible"
    assert (schedule.full_pairs, schedule.mixed_pairs) == (int((told == 2).sum()), int((told == 1).sum()))

    assert pattern.density(queries, keys, **where) == pytest.approx(float(visible.double().mean()), abs=1e-12)
    first = visible[0, 0].expand(queries, keys)
    drawn = [[character == "█" for character in line] for line in pattern.draw(queries, keys, **where).split("\n")]
    assert drawn == first.tolist()


@settings(SETTINGS, max_examples=30)
@given(situations())
def test_double_negation_and_de_morgan(situation) -> None:
    pattern, sizes, where, block = situation
    place = positions(**sizes, **where, device=torch.device("cpu"))
    assert torch.equal((~~pattern).visible(*place), pattern.visible(*place))
    twice = (~~pattern).schedule(**sizes, **where, block=block)
    assert list(twice) == list(pattern.schedule(**sizes, **where, block=block))
    none = (pattern & ~pattern).visible(*place)
    assert not bool(none.any())


# What a schedule is for: it must tell full and empty tiles apart where that is cheap, not only be safe.
@pytest.mark.parametrize("keys", [200, 256])
@pytest.mark.parametrize("block", [16, 64])
def test_analytic_schedules_are_tight(keys: int, block: int) -> None:
    # Tiles of the exact size of a block: a window's schedule marks a tile mixed only where visible and hidden meet.
    for pattern in (
        rg.Causal(),
        rg.SlidingWindow(left=40, right=3),
        rg.Causal() & rg.SlidingWindow(left=100),
        ~rg.Causal(),
    ):
        visible = pattern.visible(torch.arange(keys)[None], torch.arange(keys))[0, 0]
        for rows, runs in pattern.schedule(keys, keys, block=block):
            told = torch.zeros(keys, dtype=torch.int64)
            for run in runs:
                told[run.start : run.stop] = 2 if run.full else 1
            assert torch.equal(told == 2, visible[rows].all(0))
            assert torch.equal(told == 0, ~visible[rows].any(0))
