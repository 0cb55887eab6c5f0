"""Pairs of texts from files: records whose fields are a source and a target."""

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
    """A source, its target, and where they stand."""

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
    """Pairs from a file or several.

    Args:
        files: paths, "-" for standard input, or "datasets:NAME[:CONFIGURATION][:SPLIT]".
        parallel: a file of sources and a file of their targets, line by line; None for none.
        columns: of TSV and CSV, source and target, from 1; None: those that the header names, or the only two.
        fields: the names of source and target, in a header or in objects; "translation.en" reaches inside.
        format: "tsv", "csv", "jsonl", "json" or "parquet"; None: as a file's name ends.
        delimiter: of CSV, the character between columns; None: as the rows agree.
        skip_bad_rows: count them and go on, instead of stopping at the first.

    Returns:
        A `RecordReader`: loop over it for the pairs; its `notes` say how files were read, `skipped` what was left out.

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
    """The columns that fields name, if all of them are numbers."""
    numbers = tuple(int(name) for name in fields if name.isdecimal())
    return numbers if len(numbers) == len(fields) else None


def _pair(record: Record) -> Pair | BadRow:
    source, target = text_of(record, "source"), text_of(record, "target")
    if isinstance(source, BadRow):
        return source
    return target if isinstance(target, BadRow) else Pair(source, target, record.place)
