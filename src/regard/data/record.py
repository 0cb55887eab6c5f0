"""Rows of files: records and bad rows."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from regard.data.files import show
from regard.data.spaces import is_blank

LONGEST_TEXT = 50_000  # characters


class Record(NamedTuple):
    """The values of a row by role, and its place in the file."""

    values: dict[str, Any]  # texts from TSV, CSV and parallel files; any type of JSON from the others
    place: str  # such as "pairs.tsv:12"


class BadRow(NamedTuple):
    """A row that cannot be used."""

    place: str
    reason: str  # category in the counts
    detail: str  # about this row


class FieldSelection(NamedTuple):
    """Which fields of a file's rows are read."""

    fields: Mapping[str, str]  # name of the field for each role; "translation.en" is a field of a nested object
    columns: tuple[int, ...] | None  # of a table, in the order of roles, from 1; None: by name, or all columns
    delimiter: str | None = None  # of CSV; None to detect it

    @property
    def is_named(self) -> bool:
        """Whether a field's name differs from its role, so that a table needs a header."""
        return self.columns is None and any(role != name for role, name in self.fields.items())


Row = Record | BadRow


def text_of(record: Record, role: str, max_characters: int = LONGEST_TEXT) -> str | BadRow:
    """The text of a role in a record, stripped of spaces.

    Args:
        record: the row.
        role: key of the value.
        max_characters: maximum number of characters.

    Returns:
        The text; or a bad row if it is not a string, empty, too long, or has invalid characters.
    """
    value, place = record.values[role], record.place
    if not isinstance(value, str):
        return BadRow(place, "not text", f"the {role} is {show(repr(value))}")
    text = value.strip()
    if is_blank(text):
        others = {other: x for other, x in record.values.items() if other != role}
        detail = f"the {', '.join(others)} is {', '.join(show(str(x)) for x in others.values())}" if others else "a row"
        return BadRow(place, f"empty {role}", detail)
    if len(text) > max_characters:
        detail = f"the {role} has {len(text):,} characters, expected at most {max_characters:,}: {show(text)}"
        return BadRow(place, "too long", detail)
    if "\0" in text:
        return BadRow(place, "NUL character", f"in the {role} {show(text)}")
    # JSON can hold a lone surrogate, which is not a character.
    if not text.isascii() and any("\ud800" <= character <= "\udfff" for character in text):
        return BadRow(place, "half a character", f"in the {role} {show(text)}")
    return text


def path_and_text(record: Record, path: str, text: str) -> tuple[str, str] | BadRow:
    """The file that a record names and a text about it.

    Args:
        record: the row.
        path: role of the file's name; a relative one is in the folder of the record's file.
        text: role of the text.

    Returns:
        Path and text; or a bad row if one of them is, as of `text_of`.
    """
    name, about = text_of(record, path), text_of(record, text)
    if isinstance(name, BadRow):
        return name
    if isinstance(about, BadRow):
        return about
    return str(Path(record.place.rpartition(":")[0]).parent / name), about
