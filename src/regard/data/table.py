"""Tables in text files, TSV and CSV: detection of delimiter, quotes, header and columns from the first rows.

The detected layout is noted for the caller; a row that does not match it is a bad row.
"""

import csv
import itertools
from collections import Counter
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from regard.data.files import Line, show, shown_name
from regard.data.record import BadRow, FieldSelection, Record, Row
from regard.errors import DataError

DELIMITERS = ",;\t|"  # candidates for CSV
HEAD_ROWS, HEAD_BYTES = 1000, 2**22  # the first rows, from which the layout is detected
AGREE = 0.9  # share of the first rows that must have the same number of columns
# A first row that consists of these is a header: names of fields, and of languages.
FIELD_NAMES = """
id idx index source src sources target tgt trg targets input output text texts sentence sentence1 sentence2 sentences
translation translations reference ref label labels class category score original translated document summary title
arabic bulgarian catalan chinese croatian czech danish dutch english estonian finnish french german greek hebrew hindi
hungarian irish italian japanese korean latvian lithuanian norwegian polish portuguese romanian russian slovak
slovenian spanish swedish turkish ukrainian vietnamese deutsch englisch italienisch français anglais italien español
inglés italiano inglese francese tedesco spagnolo português
"""
LANGUAGES = """
ar bg bn ca cs cy da de el en es et eu fa fi fr ga gl he hi hr hu id is it ja ka ko lt lv mk ms mt nb nl nn no pl pt ro
ru sk sl sq sr sv sw ta th tr uk ur vi zh
"""


class Layout(NamedTuple):
    """The layout of a table in a text file."""

    delimiter: str
    is_quoted: bool  # quoted cells may contain delimiters and line ends
    header: list[str] | None  # the first row, if it names the columns
    columns: list[int]  # of the roles, from 0
    width: int | None  # columns of a row; None: as the first row that has enough


def read_table(
    file: str, lines: Iterator[Line], selection: FieldSelection, kind: str, notes: dict[str, str]
) -> Iterator[Row]:
    """Read the selected columns of a table.

    Args:
        file: its path, for messages.
        lines: of the file.
        selection: fields or columns to read.
        kind: "TSV", or "CSV", whose delimiter is detected.
        notes: receives how the file was read, unless it is TSV without header and quotes.

    Yields:
        Records, or bad rows.

    Raises:
        DataError: CSV without a delimiter, or a header that lacks a field.
    """
    head, lines = peek(lines)
    layout = find_layout(file, head, selection, kind)
    if kind == "CSV" or layout.header or layout.is_quoted:
        notes[file] = _note(head, layout, kind)
    width, names = layout.width, tuple(selection.fields)
    header, any_fits = layout.header, False
    for place, cells in split_rows(lines, layout, shown_name(file)):
        if isinstance(cells, BadRow):
            yield cells
            continue
        if cells == header:
            header = None  # once
            continue
        if width is None and len(cells) > max(layout.columns):
            width = len(cells)
        if len(cells) == width:
            any_fits = True
            yield Record({name: cells[i] for name, i in zip(names, layout.columns, strict=True)}, place)
        else:
            between = "tabs" if layout.delimiter == "\t" else repr(layout.delimiter)
            expected = width or f"at least {max(layout.columns) + 1}"
            text = layout.delimiter.join(cells)
            hint = "" if any_fits or layout.header else _hint(len(cells), selection, layout)
            detail = f"{len(cells)}, expected {expected}, with {between} between: {show(text)}{hint}"
            yield BadRow(place, "wrong number of columns", detail)


def find_layout(file: str, head: list[Line], selection: FieldSelection, kind: str) -> Layout:
    """Detect the layout of a table from its first lines.

    Raises:
        DataError: CSV without a delimiter, or a header that lacks a field.
    """
    delimiter = "\t"
    if kind == "CSV":
        delimiter = selection.delimiter or _delimiter(file, head, selection)
    is_quoted = kind == "CSV" or _has_quotes(head)
    plain = Layout(delimiter, is_quoted, None, [], None)
    first = next((cells for _, cells in split_rows(iter(head), plain, file) if not isinstance(cells, BadRow)), [])
    names = [cell.strip().casefold() for cell in first]
    fields = [name.casefold() for name in selection.fields.values()]
    if selection.columns is not None:
        columns = [column - 1 for column in selection.columns]
        header = first if max(columns) < len(names) and _is_header([names[i] for i in columns]) else None
        return Layout(delimiter, is_quoted, header, columns, len(first) if header else None)
    if set(fields) <= set(names):
        return Layout(delimiter, is_quoted, first, [names.index(field) for field in fields], len(first))
    places = list(range(len(fields)))
    if selection.is_named or (_is_header(names) and len(names) != len(fields)):
        missing = next(name for name in selection.fields.values() if name.casefold() not in names)
        raise DataError(
            f"{shown_name(file)} has no column {missing!r}; its first row is {', '.join(map(show, first[:8]))}; set "
            "the fields to names of columns in that row, or to numbers of columns, from 1"
        )
    return Layout(delimiter, is_quoted, first if _is_header(names) else None, places, len(fields))


def find_delimiter(head: list[Line], selection: FieldSelection) -> str | None:
    """The delimiter of the header or of nearly all first rows; None if there is none, or more than one."""
    return next(iter(delimiters)) if len(delimiters := _delimiters(head, selection)) == 1 else None


def peek(lines: Iterator[Line]) -> tuple[list[Line], Iterator[Line]]:
    """The first lines, and an iterator over all lines, these included."""
    head: list[Line] = []
    size = 0
    for line in lines:
        head.append(line)
        size += len(line.content)
        if len(head) >= HEAD_ROWS or size >= HEAD_BYTES:
            break
    return head, itertools.chain(head, lines)


def decode_line(line: Line, place: str) -> str | BadRow:
    """The text of a line, or a bad row if it is too long or not UTF-8."""
    if not line.complete:
        return BadRow(place, "too long", f"more than {len(line.content):,} bytes: {show(line.content)}")
    try:
        return line.content.decode("utf-8")
    except UnicodeDecodeError as error:
        detail = f"byte 0x{line.content[error.start]:02x} at position {error.start + 1}: {show(line.content)}"
        return BadRow(place, "not UTF-8", detail)


def split_rows(lines: Iterator[Line], layout: Layout, name: str) -> Iterator[tuple[str, list[str] | BadRow]]:
    """The place and the cells of each row."""
    if layout.is_quoted:
        yield from _csv_rows(lines, layout.delimiter, name)
        return
    for line in lines:
        place = f"{name}:{line.number}"
        text = decode_line(line, place)
        yield place, text if isinstance(text, BadRow) else text.split(layout.delimiter)


def _csv_rows(lines: Iterator[Line], delimiter: str, name: str) -> Iterator[tuple[str, list[str] | BadRow]]:
    """Rows as read by the csv module: a row may span several lines, and blank lines are skipped."""
    bad: list[BadRow] = []  # bad lines of the current row

    def texts() -> Iterator[str]:
        for line in lines:
            place = f"{name}:{line.number}"
            text = decode_line(line, place)
            if isinstance(text, BadRow):
                bad.append(text)
                text = "?"
            yield text + "\n"

    reader = csv.reader(texts(), delimiter=delimiter, strict=True)
    while True:
        place = f"{name}:{reader.line_num + 1}"
        try:
            cells = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            several = reader.line_num > int(place.rpartition(":")[2])
            why = "a text in quotes that does not end" if several or "end of data" in str(error) else error
            cells = []
            bad.append(BadRow(place, "not CSV", f"{why}; a quote in such a text is written twice"))
        if bad:
            yield place, bad[0]
            bad.clear()
        elif cells:
            yield place, cells


def _delimiter(file: str, head: list[Line], selection: FieldSelection) -> str:
    delimiters = _delimiters(head, selection)
    if len(delimiters) == 1:
        return next(iter(delimiters))
    candidates = " ".join(map(_shown, DELIMITERS))
    if delimiters:
        raise DataError(
            f"{shown_name(file)} can be read with each of {' '.join(map(_shown, delimiters))} between columns; say "
            "which: delimiter, or --delimiter"
        )
    first = show(head[0].content) if head else "nothing"
    raise DataError(
        f"{shown_name(file)} has none of {candidates} that gives its first rows as many columns, at least "
        f"{len(selection.fields)}; its first line is {first}. Put texts that hold the delimiter in quotes, or say "
        "delimiter, or --delimiter"
    )


def _delimiters(head: list[Line], selection: FieldSelection) -> list[str]:
    """The best delimiters for the first rows: those of a header with the fields, else of the most consistent rows."""
    min_width = max(selection.columns) if selection.columns else len(selection.fields)
    fields = {name.casefold() for name in selection.fields.values()}
    agreeing: dict[str, tuple[bool, bool, float]] = {}
    for delimiter in DELIMITERS:
        rows = list(_first_rows(head, delimiter))
        if not rows:
            continue
        width, count = Counter(map(len, rows)).most_common(1)[0]
        has_fields = fields <= {cell.strip().casefold() for cell in rows[0]}
        if width >= max(2, min_width) and count / len(rows) >= AGREE:
            agreeing[delimiter] = (has_fields, width == len(selection.fields), count / len(rows))
    return [delimiter for delimiter, rank in agreeing.items() if rank == max(agreeing.values())]


def _first_rows(head: list[Line], delimiter: str) -> Iterator[list[str]]:
    """The rows of the first lines with this delimiter; the last may be truncated within quotes."""
    layout = Layout(delimiter, True, None, [], None)
    return (cells for _, cells in split_rows(iter(head), layout, "") if not isinstance(cells, BadRow))


def _has_quotes(head: list[Line]) -> bool:
    """Whether cells of TSV are quoted as in CSV: all of them, or those that contain doubled quotes."""
    texts = (text for line in head if not isinstance(text := decode_line(line, ""), BadRow))
    rows = [[cell for cell in text.split("\t") if cell] for text in texts]
    if any('""' in cell[1:-1] and _is_quoted(cell) for row in rows for cell in row):
        return True
    body = rows if rows and all(map(_is_quoted, rows[0])) else rows[1:]
    return len(body) >= 2 and all(_is_quoted(cell) for row in body for cell in row)


def _is_quoted(cell: str) -> bool:
    ends = len(cell) >= 2 and cell[0] == cell[-1] == '"'
    return ends and '"' not in cell[1:-1].replace('""', "")


def _is_header(names: Iterable[str]) -> bool:
    """Whether a row consists of distinct names of fields or languages, such as "en" and "it_IT"."""
    words = [name for name in names if name]
    fields, languages = FIELD_NAMES.split(), LANGUAGES.split()
    known = [word in fields or word.replace("_", "-").partition("-")[0] in languages for word in words]
    return len(words) >= 2 and len(set(words)) == len(words) and all(known)


def _note(head: list[Line], layout: Layout, kind: str) -> str:
    parts = [f"read as {kind}"]
    if kind == "CSV":
        parts.append(f"delimiter {_shown(layout.delimiter)}")
    elif layout.is_quoted:
        parts.append("texts in quotes")
    if layout.header is not None:
        parts.append(f"fields {' and '.join(repr(layout.header[i].strip()) for i in layout.columns)} of its header")
        return ", ".join(parts)
    rows = split_rows(iter(head), layout, "")
    first = next((c for _, c in rows if not isinstance(c, BadRow) and len(c) > max(layout.columns)), None)
    parts.append(f"columns {' and '.join(str(i + 1) for i in layout.columns)}, no header")
    example = f"; the first row is {' and '.join(show(first[i]) for i in layout.columns)}" if first else ""
    return ", ".join(parts) + example


def _shown(delimiter: str) -> str:
    return "tab" if delimiter == "\t" else repr(delimiter)


def _hint(cells: int, selection: FieldSelection, layout: Layout) -> str:
    if cells == 1 and layout.delimiter == "\t":
        return "; CSV is read with format='csv' (--format csv), texts in two files with parallel (--parallel)"
    if cells > len(selection.fields) and selection.columns is None:
        return "; select columns by their numbers, from 1, instead of names of fields"
    return ""
