"""Dates in many languages: what is written, that it has one meaning, and that test dates stay unseen."""

import datetime
import itertools
from collections import Counter

import pytest

from regard.tasks.dates import FIRST, FORMATS, LANGUAGES, LAST, PARTS, concatenated, dates, name, part_of, written

DAY = datetime.date(2022, 5, 3)


@pytest.mark.parametrize(
    ("language", "style", "text"),
    [
        ("it", "full", "martedì 3 maggio 2022"),
        ("en", "long", "May 3, 2022"),
        ("de", "medium", "03.05.2022"),
        ("hu", "full", "2022. május 3., kedd"),
        ("ja", "long", "2022年5月3日"),
    ],
)
def test_written(language: str, style: str, text: str) -> None:
    assert written(DAY, language, style) == text


def test_languages() -> None:
    assert len(set(LANGUAGES)) == len(LANGUAGES) >= 20
    assert [name(language) for language in ("de", "zh")] == ["German", "Chinese"]


def test_a_text_has_one_meaning() -> None:
    days = [datetime.date(2011, month, day) for month in range(1, 13) for day in (*range(1, 13), 28)]
    meanings: dict[str, datetime.date] = {}
    for day, language, style in itertools.product(days, LANGUAGES, FORMATS):
        text = written(day, language, style)
        assert meanings.setdefault(text, day) == day, (text, language)
        assert not set(text) & {"\t", "\n", "\r", ";"}  # a row of a TSV file; ";" stands between dates


def test_parts_share_no_date() -> None:
    days = [datetime.date.fromordinal(n) for n in range(FIRST.toordinal(), LAST.toordinal() + 1)]
    counts = Counter(map(part_of, days))
    assert {part: round(10 * counts[part] / len(days)) for part in PARTS} == {"train": 8, "valid": 1, "test": 1}
    for part in PARTS:
        for seed in (0, 1):
            for pair in dates(part, 200, seed=seed):
                day = datetime.date.fromisoformat(pair.target)
                assert part_of(day) == part
                assert pair.source in {written(day, pair.language, style) for style in FORMATS}


def test_a_seed_settles_everything() -> None:
    assert list(dates("train", 50, seed=3)) == list(dates("train", 50, seed=3))
    assert list(dates("train", 50, seed=3)) != list(dates("train", 50, seed=4))
    assert {pair.language for pair in dates("train", len(LANGUAGES))} == set(LANGUAGES)
    assert {pair.language for pair in dates("train", 5, languages=("it", "fi"))} == {"it", "fi"}


def test_concatenated() -> None:
    for pair in concatenated(4, "test", 20):
        texts, days, languages = pair.source.split("; "), pair.target.split("; "), pair.language.split()
        assert len(texts) == len(days) == len(languages) == 4
        for text, iso, language in zip(texts, days, languages, strict=True):
            day = datetime.date.fromisoformat(iso)
            assert part_of(day) == "test"
            assert text in {written(day, language, style) for style in FORMATS}
