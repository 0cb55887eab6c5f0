"""Readers of file formats: TSV, CSV, JSON, Parquet and Hugging Face data sets, as records or bad rows."""

import itertools
import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from regard.data.files import Line, check_file, is_stream, read_lines, show, shown_name
from regard.data.json_values import read_values
from regard.data.record import BadRow, FieldSelection, Record, Row
from regard.data.table import decode_line, find_delimiter, peek, read_table
from regard.errors import ConfigError, DataError, nearest

DATASETS = "datasets:"  # prefix of the name of a Hugging Face data set
FORMATS = ("tsv", "csv", "jsonl", "json", "parquet")
TEXT = "text"  # TSV, CSV or JSON, recognized by the first rows
ROWS_AT_ONCE = 1000
LONGEST_NAME, MOST_NAMES = 40, 20  # of fields, in a message

Notes = dict[str, str]  # by file, how its rows were read


def read_tsv(file: str, selection: FieldSelection, at: Path | None, notes: Notes) -> Iterator[Row]:
    """Read TSV: columns separated by tabs."""
    return read_table(file, read_lines(file, at=at), selection, "CSV" if selection.delimiter else "TSV", notes)


def read_csv(file: str, selection: FieldSelection, at: Path | None, notes: Notes) -> Iterator[Row]:
    """Read CSV: columns separated by a delimiter, with optional quotes."""
    return read_table(file, read_lines(file, at=at), selection, "CSV", notes)


def read_jsonl(file: str, selection: FieldSelection, at: Path | None, notes: Notes) -> Iterator[Row]:
    """Read JSON Lines: a JSON object on each line."""
    return _json_lines(file, read_lines(file, at=at), selection)


def read_json(file: str, selection: FieldSelection, at: Path | None, notes: Notes) -> Iterator[Row]:
    """Read JSON: a list of objects, or concatenated objects."""
    return _numbered(read_values(file, at), selection, shown_name(file))


def read_text(file: str, selection: FieldSelection, at: Path | None, notes: Notes) -> Iterator[Row]:
    """Read JSON, CSV or TSV, as recognized by the first rows."""
    head, lines = peek(read_lines(file, at=at))
    if head and _is_object(head[0]):
        notes[file] = "read as JSON, an object a line"
        return _json_lines(file, lines, selection)
    if head and head[0].content.lstrip().startswith(b"["):
        if at is None and is_stream(file):
            raise ConfigError(f"{shown_name(file)} begins as a JSON list; say format='json', or --format json")
        notes[file] = "read as JSON, a list of objects"
        return _numbered(read_values(file, at), selection, shown_name(file))
    return read_table(file, lines, selection, "CSV" if _is_csv(head, selection) else "TSV", notes)


def read_parallel(files: tuple[str, ...], roles: tuple[str, ...]) -> Iterator[Row]:
    """Read parallel files: row n has the n-th line of each file, in the order of the roles."""
    for number, lines in enumerate(itertools.zip_longest(*(read_lines(file) for file in files)), 1):
        if None in lines:
            short = next(file for file, line in zip(files, lines, strict=True) if line is None)
            long = next(file for file, line in zip(files, lines, strict=True) if line is not None)
            raise DataError(f"{short} ends before line {number}, but {long} has more lines; expected equally many")
        texts = [decode_line(line, f"{file}:{number}") for file, line in zip(files, lines, strict=True)]
        bad = next((text for text in texts if isinstance(text, BadRow)), None)
        yield bad or Record(dict(zip(roles, texts, strict=True)), f"{files[0]}:{number}")


def read_parquet(file: str, selection: FieldSelection, at: Path | None, notes: Notes) -> Iterator[Row]:
    """Read columns of a Parquet file."""
    check_file(str(at or file))
    try:
        import pyarrow
        from pyarrow import parquet
    except ImportError as error:
        raise ConfigError(f"{shown_name(file)} is Parquet: pip install regard[data] to read it") from error
    names = list(selection.fields.values())
    try:
        with parquet.ParquetFile(at or file) as table:
            known = table.schema_arrow.names
            for name in names:
                if name.partition(".")[0] not in known:
                    raise DataError(f"{shown_name(file)} has {no_field(name, known)}")
            batches = table.iter_batches(ROWS_AT_ONCE, columns=names)
            yield from _numbered((row for batch in batches for row in batch.to_pylist()), selection, shown_name(file))
    except (OSError, pyarrow.ArrowException) as error:
        raise DataError(f"{shown_name(file)} cannot be read as Parquet: {error}") from error


def read_datasets(name: str, selection: FieldSelection) -> Iterator[Row]:
    """Read a data set of the Hugging Face hub or a local one: datasets:NAME[:CONFIGURATION][:SPLIT]."""
    try:
        import datasets
    except ImportError as error:
        raise ConfigError(f"{name} is a data set: pip install regard[data] to load it") from error
    path, *configuration = name.removeprefix(DATASETS).split(":")
    split = configuration.pop() if configuration else "train"
    try:
        rows = datasets.load_dataset(path, *configuration, split=split)
    except (OSError, ValueError, ImportError, datasets.exceptions.DatasetsError) as error:
        raise DataError(f"{name} cannot be loaded: {error}") from error
    yield from _numbered(rows, selection, name)


READERS: dict[str, Callable[[str, FieldSelection, Path | None, Notes], Iterator[Row]]] = {
    "tsv": read_tsv,
    "csv": read_csv,
    "jsonl": read_jsonl,
    "json": read_json,
    "parquet": read_parquet,
    TEXT: read_text,
}


def is_plain_text(file: str, selection: FieldSelection) -> bool:
    """Whether the first lines of a file are texts, rather than rows of a table or JSON."""
    head, _ = peek(read_lines(file))
    if head and head[0].content.lstrip().startswith((b"{", b"[")):
        return False
    return not any(b"\t" in line.content or b"\0" in line.content for line in head) and not _is_csv(head, selection)


def no_field(name: str, known: Iterable[str]) -> str:
    """The text of a message about a missing field."""
    return f"no field {name!r}; {nearest(name, [key[:LONGEST_NAME] for key in known][:MOST_NAMES])}"


def _is_csv(head: list[Line], selection: FieldSelection) -> bool:
    if selection.delimiter:
        return True
    if sum(b"\t" in line.content for line in head) > len(head) / 2:
        return False
    return find_delimiter(head, selection) is not None


def _is_object(line: Line) -> bool:
    """Whether a line is a complete JSON object."""
    if not line.content.lstrip().startswith(b"{"):
        return False
    try:
        return isinstance(json.loads(line.content), dict)
    except (ValueError, RecursionError):
        return False


def _json_lines(file: str, lines: Iterator[Line], selection: FieldSelection) -> Iterator[Row]:
    for line in lines:
        place = f"{shown_name(file)}:{line.number}"
        text = decode_line(line, place)
        if isinstance(text, BadRow):
            yield text
            continue
        try:
            value = json.loads(text)
        except (ValueError, RecursionError) as error:
            yield BadRow(place, "not JSON", f"{error}: {show(text)}")
            continue
        yield _picked(value, selection.fields, place)


def _numbered(rows: Iterable[Any], selection: FieldSelection, name: str) -> Iterator[Row]:
    number = 0
    for number, row in enumerate(rows, 1):
        yield _picked(row, selection.fields, f"{name}:{number}")
    if not number:
        raise DataError(f"{name} has no rows; expected {' and '.join(selection.fields)} in each")


def _picked(row: Any, fields: Mapping[str, str], place: str) -> Row:
    """The named fields of an object; "translation.en" is the field "en" of the field "translation"."""
    values = {}
    for role, name in fields.items():
        value = row
        for key in name.split("."):
            if not isinstance(value, Mapping):
                return BadRow(place, "not an object", f"{show(repr(value))} cannot have a field {key!r}")
            if key not in value:
                return BadRow(place, "missing field", no_field(key, value))
            value = value[key]
        values[role] = value
    return Record(values, place)
