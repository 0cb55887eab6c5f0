"""Held-out rows and samples: the requested number, deterministic, and each source on one side only."""

from collections import Counter

import pytest

from regard.data.sample import HeldOut, Sample, text_hash


def chosen(keys: list[int], most: int, rows: int) -> frozenset[int]:
    held = HeldOut(most)
    for key in keys:
        held.add(key)
    return held.choose(rows)


def test_the_smallest_hashes_are_held_out() -> None:
    assert chosen([5, 3, 9, 1, 7], most=3, rows=3) == {1, 3, 5}
    assert chosen([5, 3, 9, 1, 7], most=3, rows=2) == {1, 3}


def test_rows_are_counted_and_not_sources() -> None:
    assert chosen([1, 1, 1, 3, 5], most=3, rows=2) == {3, 5}  # 1 has three rows
    assert chosen([9, 1, 8, 1, 7, 1], most=2, rows=4) == {1, 7}


def test_at_least_one_source_unless_it_is_the_only_one() -> None:
    assert chosen([4, 4, 2, 2, 2], most=5, rows=0) == {4}
    assert chosen([4, 4], most=5, rows=0) == frozenset()
    assert chosen([1, 1, 4], most=1, rows=0) == {1}


@pytest.mark.parametrize("most", [1, 10, 300])
def test_the_same_as_sorting_everything(most: int) -> None:
    keys = [text_hash(str(n % 700)) for n in range(1500)]
    rows, expected, total = Counter(keys), set(), 0
    for key in sorted(rows)[:most]:
        if total + rows[key] <= most:
            expected.add(key)
            total += rows[key]
    assert chosen(keys, most, most) == (expected or {min(rows)})


def test_case_and_spaces_make_no_other_source() -> None:
    assert text_hash("The  Text") == text_hash("the text ")
    assert text_hash("\ufeffThe\u00a0Te\u00adxt") == text_hash("the text")
    assert text_hash("The Text") != text_hash("The Texts")
    assert text_hash("") == 0xE4A6A0577479B2B4  # fixed: the rows held out stay the same from version to version


def test_a_sample_is_fair_and_repeats() -> None:
    def sampled() -> list[str]:
        sample = Sample(100)
        for n in range(10_000):
            sample.add(str(n), "x" * 5000)
        return sample.texts

    first = sampled()
    assert first == sampled()
    assert len(first) == 200
    assert max(map(len, first)) == 1000
    assert 4000 < sum(map(int, first[::2])) / 100 < 6000
