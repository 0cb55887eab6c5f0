"""The kinds of files that pairs come in: each is read as rows that are a pair, or say why they are none."""

import json
from collections.abc import Iterable, Iterator, Mapping
from itertools import zip_longest
from pathlib import Path
from typing import Any, NamedTuple

from regard.data.files import Line, check_file, read_lines, show, shown_name
from regard.errors import ConfigError, DataError, nearest

DATASETS = "datasets:"  # what the name of a Hugging Face data set starts with
ROWS_AT_ONCE = 1000
LONGEST_NAME, MOST_NAMES = 40, 20  # of fields, in a message

Columns = tuple[int, ...]  # two numbers, of source and target, from 1
Fields = tuple[str, ...]  # two names


class Pair(NamedTuple):
    """A source, its target, and where they stand."""

    source: str
    target: str
    place: str  # such as "pairs.tsv:12"


class BadRow(NamedTuple):
    """A row that is no pair."""

    place: str
    reason: str  # what it is counted under
    detail: str  # what this one holds


Row = Pair | BadRow


def read_tsv(file: str, columns: Columns | None = None, at: Path | None = None) -> Iterator[Row]:
    """Two columns with a tab between; or two of more, where every row has as many as the first that has enough."""
    source, target = columns or (1, 2)
    expected = 2 if columns is None else None
    for line in read_lines(file, at=at):
        place = f"{shown_name(file)}:{line.number}"
        text = _text(line, place)
        if isinstance(text, BadRow):
            yield text
            continue
        cells = text.split("\t")
        if expected is None and len(cells) >= max(source, target):
            expected = len(cells)
        if len(cells) == expected:
            yield Pair(cells[source - 1], cells[target - 1], place)
        else:
            wanted = expected or f"at least {max(source, target)}"
            detail = f"{len(cells)}, expected {wanted}, with tabs between: {show(text)}"
            yield BadRow(place, "wrong number of columns", detail)


def read_jsonl(file: str, fields: Fields, at: Path | None = None) -> Iterator[Row]:
    """A JSON object a line."""
    for line in read_lines(file, at=at):
        place = f"{shown_name(file)}:{line.number}"
        text = _text(line, place)
        yield text if isinstance(text, BadRow) else _parsed(text, fields, place)


def read_parallel(source_file: str, target_file: str) -> Iterator[Row]:
    """Two files: the n-th line of one is the source, the n-th line of the other the target."""
    for source_line, target_line in zip_longest(read_lines(source_file), read_lines(target_file)):
        if source_line is None or target_line is None:
            short, long = (source_file, target_file) if source_line is None else (target_file, source_file)
            number = (source_line or target_line).number
            raise DataError(f"{short} ends before line {number}, but {long} goes on; expected as many lines in both")
        source = _text(source_line, f"{source_file}:{source_line.number}")
        target = _text(target_line, f"{target_file}:{target_line.number}")
        bad = next((side for side in (source, target) if isinstance(side, BadRow)), None)
        yield bad or Pair(str(source), str(target), f"{source_file}:{source_line.number}")


def read_parquet(file: str, fields: Fields, at: Path | None = None) -> Iterator[Row]:
    """Two columns of a Parquet file."""
    check_file(str(at or file))
    try:
        import pyarrow
        from pyarrow import parquet
    except ImportError as error:
        raise ConfigError(f"{shown_name(file)} is Parquet: pip install regard[data] to read it") from error
    try:
        with parquet.ParquetFile(at or file) as table:
            known = table.schema_arrow.names
            for name in fields:
                if name.partition(".")[0] not in known:
                    raise DataError(f"{shown_name(file)} has {_no_field(name, known)}")
            batches = table.iter_batches(ROWS_AT_ONCE, columns=list(fields))
            yield from _numbered((row for batch in batches for row in batch.to_pylist()), fields, shown_name(file))
    except (OSError, pyarrow.ArrowException) as error:
        raise DataError(f"{shown_name(file)} cannot be read as Parquet: {error}") from error


def read_datasets(name: str, fields: Fields) -> Iterator[Row]:
    """A data set of Hugging Face's hub, or a folder of files: datasets:NAME[:CONFIGURATION][:SPLIT]."""
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
    yield from _numbered(rows, fields, name)


def _numbered(rows: Iterable[Any], fields: Fields, name: str) -> Iterator[Row]:
    number = 0
    for number, row in enumerate(rows, 1):
        yield _picked(row, fields, f"{name}:{number}")
    if not number:
        raise DataError(f"{name} has no rows; expected a pair of texts in each")


def _text(line: Line, place: str) -> str | BadRow:
    if not line.complete:
        return BadRow(place, "too long", f"more than {len(line.content):,} bytes: {show(line.content)}")
    try:
        return line.content.decode("utf-8")
    except UnicodeDecodeError as error:
        detail = f"byte 0x{line.content[error.start]:02x} at position {error.start + 1}: {show(line.content)}"
        return BadRow(place, "not UTF-8", detail)


def _parsed(text: str, fields: Fields, place: str) -> Row:
    try:
        row = json.loads(text)
    except (ValueError, RecursionError) as error:
        return BadRow(place, "not JSON", f"{error}: {show(text)}")
    return _picked(row, fields, place)


def _picked(row: Any, fields: Fields, place: str) -> Row:
    """The named fields of an object; "translation.en" is the field "en" of the field "translation"."""
    sides = []
    for name in fields:
        side = row
        for key in name.split("."):
            if not isinstance(side, Mapping):
                return BadRow(place, "not an object", f"{show(repr(side))} cannot have a field {key!r}")
            if key not in side:
                return BadRow(place, "missing field", _no_field(key, side))
            side = side[key]
        if not isinstance(side, str):
            return BadRow(place, "not text", f"field {name!r} is {show(repr(side))}")
        sides.append(side)
    source, target = sides
    return Pair(source, target, place)


def _no_field(name: str, known: Iterable[str]) -> str:
    return f"no field {name!r}; {nearest(name, [key[:LONGEST_NAME] for key in known][:MOST_NAMES])}"
