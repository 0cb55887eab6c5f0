"""`RecordReader`: the rows of files of any supported format as records.

    RecordReader -> Record(values={"source": "one", "target": "uno"}, place="pairs.tsv:12")

A job defines the fields of its records, and converts them: `rows.py` to pairs of texts.
"""

import os
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Generic, TypeVar, final

from regard.data import formats
from regard.data.files import check_file, is_stream
from regard.data.formats import DATASETS, FORMATS, TEXT, is_plain_text, read_parallel
from regard.data.record import BadRow, FieldSelection, Record, Row
from regard.errors import ConfigError, DataError, nearest

PACKINGS = (".gz", ".zst")
ENDINGS = {
    "tsv": "tsv", "tab": "tsv", "csv": "csv", "jsonl": "jsonl", "ndjson": "jsonl", "json": "json", "parquet": "parquet",
    "txt": TEXT,
}  # fmt: skip
OF_COLUMNS = ("csv", "tsv", TEXT)
SPREADSHEETS = ("xlsx", "xls", "ods")

T = TypeVar("T")


@final
@dataclass(frozen=True, kw_only=True)
class RecordReader(Generic[T]):
    """An iterable over the rows of files; each iteration reads the files again.

    Args:
        fields: name of the field for each role; "translation.en" is a field of a nested object.
        convert: converts a record to the value that is yielded, or to a bad row.
        files: paths, "-" for standard input, or "datasets:NAME[:CONFIGURATION][:SPLIT]".
        parallel: a file for each role; row n has their n-th lines. None for none.
        columns: column of each role in TSV and CSV, from 1; None to use the header, or a table of as many columns as
            roles.
        format: a value of `FORMATS`; None to use the file's extension.
        delimiter: character between columns of CSV; None to detect it.
        skip_bad_rows: whether bad rows are counted and skipped, instead of raising an error.
        copies: paths of copies of files that can be read only once.
        skipped: number of rows that the last iteration skipped, by reason.
        notes: how a file was read, if its name does not determine it, by file.

    Raises:
        ConfigError: no files or the same twice, an unknown format, files that look parallel, columns or fields that
            are not one for each role.
        DataError: a file that does not exist. A loop raises it too, for a row or file that cannot be used.
    """

    fields: Mapping[str, str]
    convert: Callable[[Record], T | BadRow]
    files: tuple[str, ...] = ()
    parallel: tuple[str, ...] | None = None
    columns: tuple[int, ...] | None = None
    format: str | None = None
    delimiter: str | None = None
    skip_bad_rows: bool = False
    copies: Mapping[str, Path] = field(default_factory=dict, compare=False)
    skipped: Counter[str] = field(default_factory=Counter, compare=False)
    notes: dict[str, str] = field(default_factory=dict, compare=False)

    def __post_init__(self) -> None:
        if not self.files and not self.parallel:
            raise ConfigError('no files to read; give paths, "-" for standard input, or parallel files')
        if self.format not in (None, *FORMATS):
            raise ConfigError(f"unknown format {self.format!r}; {nearest(str(self.format), FORMATS)}")
        if self.delimiter is not None and (len(self.delimiter) != 1 or self.delimiter in '"\r\n'):
            raise ConfigError(f"delimiter={self.delimiter!r} must be one character, and no quote")
        roles = ", ".join(self.fields)
        if self.columns and (len(self.columns) != len(self.fields) or min(self.columns) < 1):
            raise ConfigError(f"columns={self.columns} must be a number, counted from 1, for each of {roles}")
        if not all(self.fields.values()):
            raise ConfigError(f"fields={tuple(self.fields.values())} must be a name for each of {roles}")
        if self.parallel and len(self.parallel) != len(self.fields):
            raise ConfigError(f"parallel={self.parallel} must be a file for each of {roles}")
        if twice := [file for file, times in Counter(self.files).items() if times > 1]:
            raise ConfigError(f"{twice[0]!r} is given more than once; give each file once")
        for file in (*self.files, *(self.parallel or ())):
            if not file.startswith(DATASETS):
                check_file(file)
        self._check_parallel()
        for file in self.files:
            kind = self._format(file)
            if self.delimiter and kind not in OF_COLUMNS:
                raise ConfigError(f"delimiter={self.delimiter!r} is of CSV, and {file} is {kind}; leave it out")

    def for_files(self, files: Sequence[str]) -> "RecordReader[T]":
        """A reader of other files with the same fields."""
        endings = [ending_format(file) for file in files]
        format = self.format if None in endings else None
        delimiter = self.delimiter if all(ending in (None, *OF_COLUMNS) for ending in endings) else None
        return replace(
            self,
            files=tuple(files),
            parallel=None,
            format=format,
            delimiter=delimiter,
            copies={},
            skipped=Counter(),
            notes={},
        )

    def __iter__(self) -> Iterator[T]:
        self.skipped.clear()
        for file in self.files:
            yield from self._usable(self._rows(file))
        if self.parallel:
            yield from self._usable(read_parallel(self.parallel, tuple(self.fields)))

    def _usable(self, rows: Iterator[Row]) -> Iterator[T]:
        for row in rows:
            converted = row if isinstance(row, BadRow) else self.convert(row)
            if not isinstance(converted, BadRow):
                yield converted
            elif self.skip_bad_rows:
                self.skipped[converted.reason] += 1
            else:
                place, reason, detail = converted
                raise DataError(
                    f"{place}: {reason}: {detail}. Fix the row, or skip such rows: --skip-bad-rows, skip_bad_rows=True"
                )

    def _rows(self, file: str) -> Iterator[Row]:
        selection = FieldSelection(self.fields, self.columns, self.delimiter)
        copy = self.copies.get(file)
        kind = self._format(file)
        if kind == "datasets":
            return formats.read_datasets(file, selection)
        return formats.READERS[kind](file, selection, copy, self.notes)

    def _format(self, file: str) -> str:
        if file.startswith(DATASETS):
            return "datasets"
        if self.format:
            return self.format
        if is_stream(file):
            return TEXT
        if (kind := ending_format(file)) is not None:
            return kind
        if (ending := ending_of(file)) in SPREADSHEETS:
            raise ConfigError(f"{file} is a spreadsheet ({ending}); save it as CSV or TSV, in UTF-8")
        raise ConfigError(f"the name {file!r} does not show its format; give format, or --format: {', '.join(FORMATS)}")

    def _check_parallel(self) -> None:
        """Raise ConfigError if there are two files of plain text, which are probably parallel."""
        if len(self.files) != 2 or self.format or len(self.fields) != 2:
            return
        if any(file.startswith(DATASETS) or is_stream(file) for file in self.files):
            return
        selection = FieldSelection(self.fields, self.columns, self.delimiter)
        if all(ending_format(f) in (None, TEXT) and is_plain_text(f, selection) for f in self.files):
            source, target = self.files
            raise ConfigError(
                f"{source} and {target} look parallel: one text a line in each; say --parallel {source} {target}, or "
                f"parallel=({source!r}, {target!r})"
            )


def ending_of(file: str) -> str:
    """The extension of a file's name in lower case, without dot and without that of a compression; may be empty."""
    suffixes = [suffix.lower() for suffix in Path(file).suffixes]
    return next((suffix[1:] for suffix in reversed(suffixes) if suffix not in PACKINGS), "")


def ending_format(file: str) -> str | None:
    """The format of a file by its extension, or None."""
    return ENDINGS.get(ending_of(file))


def as_files(files: str | os.PathLike[str] | Sequence[str | os.PathLike[str]]) -> tuple[str, ...]:
    """One path or several as a tuple of strings."""
    several = [files] if isinstance(files, str | os.PathLike) else files
    return tuple(os.fspath(file) for file in several)
