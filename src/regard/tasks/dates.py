"""Synthetic pairs: dates written in thirty languages, and the same dates in ISO 8601.

The words and their order are those of the Unicode locale data, through babel. A date (year, month, day) belongs to one
part, "train", "valid" or "test", in every language and with every seed: a test date was never seen in any other way.
"""

import datetime
import hashlib
import random
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from regard.errors import ConfigError, nearest

# No two of these write different dates alike. (Croatian and Polish would: "listopada" is October, and November.)
LANGUAGES = (
    "ar", "bg", "ca", "cs", "da", "de", "el", "en", "es", "fi", "fr", "he", "hi", "hu", "id",
    "it", "ja", "ko", "lv", "nl", "pl", "pt", "ro", "ru", "sv", "th", "tr", "uk", "vi", "zh",
)  # fmt: skip
FORMATS = ("full", "long", "medium")  # of the locale data: with the weekday, without it, with a short month or digits
FIRST, LAST = datetime.date(1950, 1, 1), datetime.date(2049, 12, 31)
PARTS = {"train": range(8), "valid": range(8, 9), "test": range(9, 10)}  # tenths of all dates
BETWEEN = "; "  # separates the dates of a row


class DatePair(NamedTuple):
    """A text of one or more dates, and the dates."""

    source: str
    target: str
    language: str  # its code; those of a row, joined by spaces


def dates(part: str, count: int, *, seed: int = 0, languages: Sequence[str] = LANGUAGES) -> Iterator[DatePair]:
    """Generate dates in each language in turn, in the full, long or medium format.

    Args:
        part: "train", "valid" or "test": which dates.
        count: of pairs.
        seed: of the random choices.
        languages: codes of the locale data.

    Returns:
        Pairs such as "martedì 3 maggio 2022" and "2022-05-03".

    Raises:
        ConfigError: an unknown part or language.
    """
    return concatenated(1, part, count, seed=seed, languages=languages)


def concatenated(
    length: int, part: str, count: int, *, seed: int = 0, languages: Sequence[str] = LANGUAGES
) -> Iterator[DatePair]:
    """Generate rows of several dates in random languages: texts of any length.

    Args:
        length: dates in a row, at least 1.
        part: "train", "valid" or "test": which dates.
        count: of pairs.
        seed: of the random choices.
        languages: codes of the locale data.

    Returns:
        Pairs such as "3 May 2022; 4. Mai 1997" and "2022-05-03; 1997-05-04".

    Raises:
        ConfigError: no dates in a row, an unknown part or language.
    """
    if length < 1:
        raise ConfigError(f"length={length} must be at least 1: how many dates stand in a row")
    if part not in PARTS:
        raise ConfigError(f"unknown part {part!r}; {nearest(part, PARTS)}")
    _check_languages(languages)
    return _pairs(length, part, count, random.Random(f"{part} {length} {seed}"), languages)


def written(day: datetime.date, language: str, style: str = "full") -> str:
    """Format a date in a language.

    Args:
        day: of the Gregorian calendar.
        language: its code, such as "it".
        style: "full", "long" or "medium".

    Returns:
        The date in the language's own format.

    >>> written(datetime.date(2022, 5, 3), "it")
    'martedì 3 maggio 2022'
    """
    from babel.dates import format_date

    return format_date(day, style, locale=language)


def name(language: str) -> str:
    """English name of a language.

    >>> name("it")
    'Italian'
    """
    from babel import Locale

    return str(Locale.parse(language).english_name)


def part_of(day: datetime.date) -> str:
    """The part that a date belongs to."""
    tenth = hashlib.blake2b(day.isoformat().encode()).digest()[0] % 10
    return next(part for part, tenths in PARTS.items() if tenth in tenths)


def _pairs(length: int, part: str, count: int, choice: random.Random, languages: Sequence[str]) -> Iterator[DatePair]:
    for row in range(count):
        chosen = [languages[row % len(languages)], *choice.choices(languages, k=length - 1)]
        days = [_day(part, choice) for _ in chosen]
        texts = [written(day, each, choice.choice(FORMATS)) for day, each in zip(days, chosen, strict=True)]
        yield DatePair(BETWEEN.join(texts), BETWEEN.join(day.isoformat() for day in days), " ".join(chosen))


def _day(part: str, choice: random.Random) -> datetime.date:
    while True:
        day = datetime.date.fromordinal(choice.randint(FIRST.toordinal(), LAST.toordinal()))
        if part_of(day) == part:
            return day


def _check_languages(languages: Sequence[str]) -> None:
    from babel.localedata import locale_identifiers

    known = set(locale_identifiers())
    for language in languages:
        if language not in known:
            raise ConfigError(f"unknown language {language!r}; {nearest(language, sorted(LANGUAGES))}")
