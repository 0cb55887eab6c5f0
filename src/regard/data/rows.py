"""Pairs of source and target texts from files."""

import os
from collections.abc import Sequence
from typing import NamedTuple

from regard.data.reader import RecordReader, as_files
from regard.data.record import BadRow, Record, text_of
from regard.errors import ConfigError

__all__ = ["Pair", "PairReader", "columns_of", "read_pairs"]

Columns = tuple[int, ...]  # two numbers, of source and target, from 1
Fields = tuple[str, ...]  # two names


class Pair(NamedTuple):
    """A source, its target, and their place in a file."""

    source: str
    target: str
    place: str  # such as "pairs.tsv:12"


PairReader = RecordReader[Pair]


def read_pairs(
    files: str | os.PathLike[str] | Sequence[str | os.PathLike[str]],
    *,
    parallel: tuple[str, str] | None = None,
    columns: Columns | None = None,
    fields: Fields = ("source", "target"),
    format: str | None = None,
    delimiter: str | None = None,
    skip_bad_rows: bool = False,
) -> PairReader:
    """Read pairs of texts from files.

    Args:
        files: paths, "-" for standard input, or "datasets:NAME[:CONFIGURATION][:SPLIT]".
        parallel: a file of sources and a file of their targets, line by line; None for none.
        columns: columns of source and target in TSV and CSV, from 1; None to use the header, or a table of two columns.
        fields: names of source and target in a header or in objects; "translation.en" is a field of a nested object.
        format: "tsv", "csv", "jsonl", "json" or "parquet"; None to use the file's extension.
        delimiter: character between columns of CSV; None to detect it.
        skip_bad_rows: whether bad rows are counted and skipped, instead of raising an error.

    Returns:
        An iterable of pairs, a `RecordReader`; its `notes` tell how files were read, `skipped` counts skipped rows.

    Raises:
        ConfigError, DataError: see `RecordReader`.
    """
    if len(fields) != 2:
        raise ConfigError(f"fields={fields} must be two names, of the source and of the target")
    return RecordReader(
        fields={"source": fields[0], "target": fields[1]},
        convert=_pair,
        files=as_files(files),
        parallel=parallel,
        columns=columns,
        format=format,
        delimiter=delimiter,
        skip_bad_rows=skip_bad_rows,
    )


def columns_of(fields: Fields) -> Columns | None:
    """The fields as column numbers, if all of them are numbers; else None."""
    numbers = tuple(int(name) for name in fields if name.isdecimal())
    return numbers if len(numbers) == len(fields) else None


def _pair(record: Record) -> Pair | BadRow:
    source, target = text_of(record, "source"), text_of(record, "target")
    if isinstance(source, BadRow):
        return source
    return target if isinstance(target, BadRow) else Pair(source, target, record.place)
