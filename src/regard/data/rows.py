"""Pairs of texts from files: what is no usable pair stops the reading, or is counted and left out."""

import os
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import final

from regard.data.files import check_file, is_stream, show
from regard.data.formats import (
    DATASETS,
    BadRow,
    Columns,
    Fields,
    Pair,
    Row,
    read_datasets,
    read_jsonl,
    read_parallel,
    read_parquet,
    read_tsv,
)  # fmt: skip
from regard.data.spaces import is_blank
from regard.errors import ConfigError, DataError, nearest

__all__ = ["Pair", "PairReader", "columns_of", "read_pairs"]

LONGEST_SIDE = 50_000  # characters
FORMATS = ("tsv", "jsonl", "parquet")
PACKINGS = (".gz", ".zst")


@final
@dataclass(frozen=True, kw_only=True)
class PairReader:
    """Pairs from files, read anew by every loop over it.

    Args:
        files: paths, "-" for standard input, or "datasets:NAME[:CONFIGURATION][:SPLIT]".
        parallel: a file of sources and a file of their targets, line by line; None for none.
        columns: of TSV, source and target, numbered from 1; None: every row has these two and no more.
        fields: of JSONL, Parquet and data sets, source and target; "translation.en" reaches inside.
        format: "tsv", "jsonl" or "parquet"; None: as a file's name ends, and TSV for standard input and pipes.
        skip_bad_rows: count them and go on, instead of stopping at the first.
        copies: by file, where it was copied to because it can be read only once.
        skipped: by reason, the rows that the last loop left out.

    Raises:
        ConfigError: no files or the same twice, an unknown format, columns or fields that are not two.
        DataError: a file that does not exist. A loop raises it too, for a row or file that cannot be used.
    """

    files: tuple[str, ...] = ()
    parallel: tuple[str, str] | None = None
    columns: Columns | None = None
    fields: Fields = ("source", "target")
    format: str | None = None
    skip_bad_rows: bool = False
    copies: Mapping[str, Path] = field(default_factory=dict, compare=False)
    skipped: Counter[str] = field(default_factory=Counter, compare=False)

    def __post_init__(self) -> None:
        if not self.files and not self.parallel:
            raise ConfigError('no files to read pairs from; give paths, "-" for standard input, or parallel files')
        if self.format not in (None, *FORMATS):
            raise ConfigError(f"unknown format {self.format!r}; {nearest(str(self.format), FORMATS)}")
        if self.columns and (len(self.columns) != 2 or min(self.columns) < 1):
            raise ConfigError(f"columns={self.columns} must be two numbers, counted from 1")
        if len(self.fields) != 2 or not all(self.fields):
            raise ConfigError(f"fields={self.fields} must be two names, of the source and of the target")
        if twice := [file for file, times in Counter(self.files).items() if times > 1]:
            raise ConfigError(f"{twice[0]!r} is given more than once; give each file once")
        for file in (*self.files, *(self.parallel or ())):
            if not file.startswith(DATASETS):
                check_file(file)
        for file in self.files:
            self._format(file)

    def __iter__(self) -> Iterator[Pair]:
        self.skipped.clear()
        for file in self.files:
            yield from self._usable(self._rows(file))
        if self.parallel:
            yield from self._usable(read_parallel(*self.parallel))

    def _format(self, file: str) -> str:
        if file.startswith(DATASETS):
            return "datasets"
        if self.format:
            return self.format
        if is_stream(file):
            return "tsv"
        suffixes = [suffix.lower() for suffix in Path(file).suffixes]
        name = next((suffix[1:] for suffix in reversed(suffixes) if suffix not in PACKINGS), None)
        if name not in FORMATS:
            raise ConfigError(f"the name {file!r} does not say what is in it; say format={' or '.join(FORMATS)}")
        return name

    def _rows(self, file: str) -> Iterator[Row]:
        copy = self.copies.get(file)
        match self._format(file):
            case "tsv":
                return read_tsv(file, self.columns, copy)
            case "jsonl":
                return read_jsonl(file, self.fields, copy)
            case "parquet":
                return read_parquet(file, self.fields, copy)
            case _:
                return read_datasets(file, self.fields)

    def _usable(self, rows: Iterator[Row]) -> Iterator[Pair]:
        for row in rows:
            checked = _checked(row) if isinstance(row, Pair) else row
            if isinstance(checked, Pair):
                yield checked
            elif self.skip_bad_rows:
                self.skipped[checked.reason] += 1
            else:
                place, reason, detail = checked
                raise DataError(f"{place}: {reason}: {detail}. Mend the row, or skip such rows with skip_bad_rows")


def read_pairs(
    files: str | os.PathLike[str] | Sequence[str | os.PathLike[str]],
    *,
    parallel: tuple[str, str] | None = None,
    columns: Columns | None = None,
    fields: Fields = ("source", "target"),
    format: str | None = None,
    skip_bad_rows: bool = False,
) -> PairReader:
    """Pairs from a file or several.

    Args:
        files: paths, "-" for standard input, or "datasets:NAME[:CONFIGURATION][:SPLIT]".
        parallel, columns, fields, format, skip_bad_rows: see `PairReader`.

    Returns:
        A `PairReader`: loop over it for the pairs.

    Raises:
        ConfigError, DataError: see `PairReader`.
    """
    several = [files] if isinstance(files, str | os.PathLike) else files
    return PairReader(
        files=tuple(os.fspath(file) for file in several),
        parallel=parallel,
        columns=columns,
        fields=fields,
        format=format,
        skip_bad_rows=skip_bad_rows,
    )


def columns_of(fields: Fields) -> Columns | None:
    """The columns of TSV that two fields name, if both are numbers."""
    numbers = tuple(int(name) for name in fields if name.isdecimal())
    return numbers if len(numbers) == 2 else None


def _checked(pair: Pair) -> Row:
    """The pair without spaces around its sides, or why it cannot be used."""
    source, target, place = pair.source.strip(), pair.target.strip(), pair.place
    for name, side, other in (("source", source, target), ("target", target, source)):
        if is_blank(side):
            return BadRow(place, f"empty {name}", f"the other side is {show(other)}")
        if len(side) > LONGEST_SIDE:
            detail = f"the {name} has {len(side):,} characters, expected at most {LONGEST_SIDE:,}: {show(side)}"
            return BadRow(place, "too long", detail)
        if "\0" in side:
            return BadRow(place, "NUL character", f"in the {name} {show(side)}")
        # JSON can write one half of a pair of surrogates, which is no character.
        if not side.isascii() and any("\ud800" <= character <= "\udfff" for character in side):
            return BadRow(place, "half a character", f"in the {name} {show(side)}")
    return Pair(source, target, place)
