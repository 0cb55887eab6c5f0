"""Learning rates by step."""

import itertools
import math

import pytest

from regard.train.schedule import Schedule


@pytest.mark.parametrize("kind", ["linear", "cosine", "paper", "constant"])
def test_the_rate_rises_to_its_peak_and_never_above(kind):
    schedule = Schedule(kind=kind, peak=0.5, warmup=10, steps=100)
    rates = [schedule.rate(step) for step in range(1, 101)]
    assert rates[:10] == pytest.approx([0.05 * step for step in range(1, 11)])
    assert max(rates) == rates[9]
    assert all(rate > 0 for rate in rates)
    assert all(later <= before for before, later in itertools.pairwise(rates[9:]))


def test_the_paper_rate_is_its_equation_3():
    size, warmup = 512, 4000
    schedule = Schedule(kind="paper", peak=(size * warmup) ** -0.5, warmup=warmup, steps=100_000)
    for step in (1, 100, 4000, 5000, 90_000):
        assert schedule.rate(step) == pytest.approx(size**-0.5 * min(step**-0.5, step * warmup**-1.5))


def test_cosine_is_half_way_in_the_middle():
    schedule = Schedule(kind="cosine", peak=1.0, warmup=0, steps=99)
    assert schedule.rate(50) == pytest.approx(0.5)
    assert schedule.rate(25) == pytest.approx((1 + math.cos(math.pi / 4)) / 2)


@pytest.mark.parametrize("kind", ["linear", "cosine"])
@pytest.mark.parametrize("steps", [60, 150])
def test_another_number_of_steps_bends_the_way_down(kind, steps):
    first = Schedule(kind=kind, peak=1.0, warmup=10, steps=100)
    found = first.refit(40, steps)
    assert found.rate(40) == pytest.approx(first.rate(40))
    rates = [found.rate(step) for step in range(40, steps + 2)]
    assert all(later < before for before, later in itertools.pairwise(rates))
    assert rates[-1] == pytest.approx(0)
    again = found.refit(50, 100).refit(50, 100)
    assert again.rate(50) == pytest.approx(found.rate(50))
    assert again.rate(101) == pytest.approx(0)


def test_in_the_warm_up_only_the_end_moves():
    first = Schedule(kind="linear", peak=1.0, warmup=10, steps=100)
    assert first.refit(5, 50) == Schedule(kind="linear", peak=1.0, warmup=10, steps=50)
