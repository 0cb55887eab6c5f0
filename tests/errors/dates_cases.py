"""Dates that cannot be made: see `cases.py`."""

from collections.abc import Callable

from regard.errors import ConfigError
from regard.tasks.dates import concatenated, dates

CASES: list[tuple[str, Callable[[], object], type[Exception], str]] = [
    ("dates-length", lambda: concatenated(0, "train", 1), ConfigError, "length=0 must be at least 1"),
    ("dates-part", lambda: dates("tset", 1), ConfigError, "unknown part 'tset'; did you mean 'test'?"),
    (
        "dates-language",
        lambda: dates("test", 1, languages=("xx",)),
        ConfigError,
        "unknown language 'xx'; known: ar, bg",
    ),
]
