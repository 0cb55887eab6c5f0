"""A row of a file: its values by role, and where it stands; or why it cannot be used."""

from collections.abc import Mapping
from typing import Any, NamedTuple

from regard.data.files import show
from regard.data.spaces import is_blank

LONGEST_TEXT = 50_000  # characters


class Record(NamedTuple):
    """The values of a row by role, and where the row stands."""

    values: dict[str, Any]  # texts from TSV, CSV and parallel files; any type of JSON from the others
    place: str  # such as "pairs.tsv:12"


class BadRow(NamedTuple):
    """A row that cannot be used."""

    place: str
    reason: str  # what it is counted under
    detail: str  # what this one holds


class Wanted(NamedTuple):
    """What is wanted of a file's rows."""

    fields: Mapping[str, str]  # by role, the name of a field; "translation.en" reaches inside
    columns: tuple[int, ...] | None  # of a table, in the order of the roles, from 1; None: by name, or all there are
    delimiter: str | None = None  # of CSV; None: as the rows agree

    @property
    def is_named(self) -> bool:
        """Whether a field has another name than its role, which a table's header must then have."""
        return self.columns is None and any(role != name for role, name in self.fields.items())


Row = Record | BadRow


def text_of(record: Record, role: str, longest: int = LONGEST_TEXT) -> str | BadRow:
    """A value of a record as a text that can be used, without spaces around it.

    Args:
        record: the row.
        role: which of its values.
        longest: characters that it may have.

    Returns:
        The text; or why it cannot be used: it is no text, empty, too long, or has characters that are none.
    """
    value, place = record.values[role], record.place
    if not isinstance(value, str):
        return BadRow(place, "not text", f"the {role} is {show(repr(value))}")
    text = value.strip()
    if is_blank(text):
        others = {other: x for other, x in record.values.items() if other != role}
        detail = f"the {', '.join(others)} is {', '.join(show(str(x)) for x in others.values())}" if others else "a row"
        return BadRow(place, f"empty {role}", detail)
    if len(text) > longest:
        detail = f"the {role} has {len(text):,} characters, expected at most {longest:,}: {show(text)}"
        return BadRow(place, "too long", detail)
    if "\0" in text:
        return BadRow(place, "NUL character", f"in the {role} {show(text)}")
    # JSON can write one half of a pair of surrogates, which is no character.
    if not text.isascii() and any("\ud800" <= character <= "\udfff" for character in text):
        return BadRow(place, "half a character", f"in the {role} {show(text)}")
    return text
