"""Tables in text files, TSV and CSV: which columns are wanted, by the header and the quotes that the first rows have.

What is taken is noted, so that a caller can say it; a row that does not fit the others says why.
"""

import csv
import itertools
from collections import Counter
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from regard.data.files import Line, show, shown_name
from regard.data.record import BadRow, Record, Row, Wanted
from regard.errors import DataError

DELIMITERS = ",;\t|"  # that CSV is looked through for
HEAD_ROWS, HEAD_BYTES = 1000, 2**22  # of a file, that settle how it is read
AGREE = 0.9  # share of the first rows that must have the same number of columns
# First rows made of nothing but these are headers: names of fields, and of languages.
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
    """How the rows of a file are a table."""

    delimiter: str
    is_quoted: bool  # cells may stand in double quotes, and hold delimiters and ends of lines there
    header: list[str] | None  # the first row, if it names the columns
    columns: list[int]  # of the roles, from 0
    width: int | None  # columns of a row; None: as the first row that has enough


def read_table(file: str, lines: Iterator[Line], wanted: Wanted, kind: str, notes: dict[str, str]) -> Iterator[Row]:
    """The wanted columns of a table.

    Args:
        file: its path, for messages.
        lines: of the file.
        wanted: which columns.
        kind: "TSV", or "CSV", whose delimiter is found.
        notes: where it is noted how the file was read, unless it is TSV without a header and quotes.

    Yields:
        Records, or rows that are none.

    Raises:
        DataError: CSV without a delimiter, or a header without a wanted field.
    """
    head, lines = peeked(lines)
    layout = find_layout(file, head, wanted, kind)
    if kind == "CSV" or layout.header or layout.is_quoted:
        notes[file] = _note(head, layout, kind)
    width, names = layout.width, tuple(wanted.fields)
    header, any_fits = layout.header, False
    for place, cells in split(lines, layout, shown_name(file)):
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
            hint = "" if any_fits or layout.header else _hint(len(cells), wanted, layout)
            detail = f"{len(cells)}, expected {expected}, with {between} between: {show(text)}{hint}"
            yield BadRow(place, "wrong number of columns", detail)


def find_layout(file: str, head: list[Line], wanted: Wanted, kind: str) -> Layout:
    """How a table is to be read, from its first lines.

    Raises:
        DataError: CSV without a delimiter, or a header without a wanted field.
    """
    delimiter = "\t"
    if kind == "CSV":
        delimiter = wanted.delimiter or _delimiter(file, head, wanted)
    is_quoted = kind == "CSV" or _has_quotes(head)
    plain = Layout(delimiter, is_quoted, None, [], None)
    first = next((cells for _, cells in split(iter(head), plain, file) if not isinstance(cells, BadRow)), [])
    names = [cell.strip().casefold() for cell in first]
    fields = [name.casefold() for name in wanted.fields.values()]
    if wanted.columns is not None:
        columns = [column - 1 for column in wanted.columns]
        header = first if max(columns) < len(names) and _is_header([names[i] for i in columns]) else None
        return Layout(delimiter, is_quoted, header, columns, len(first) if header else None)
    if set(fields) <= set(names):
        return Layout(delimiter, is_quoted, first, [names.index(field) for field in fields], len(first))
    places = list(range(len(fields)))
    if wanted.is_named or (_is_header(names) and len(names) != len(fields)):
        missing = next(name for name in wanted.fields.values() if name.casefold() not in names)
        raise DataError(
            f"{shown_name(file)} has no column {missing!r}; its first row is {', '.join(map(show, first[:8]))}; give "
            "the fields the names of columns in that row, or numbers of columns, from 1"
        )
    return Layout(delimiter, is_quoted, first if _is_header(names) else None, places, len(fields))


def find_delimiter(head: list[Line], wanted: Wanted) -> str | None:
    """The delimiter that the header or nearly all of the first rows agree on; None if there is none, or several."""
    return next(iter(found)) if len(found := _delimiters(head, wanted)) == 1 else None


def peeked(lines: Iterator[Line]) -> tuple[list[Line], Iterator[Line]]:
    """The first lines, and all lines with these among them."""
    head: list[Line] = []
    size = 0
    for line in lines:
        head.append(line)
        size += len(line.content)
        if len(head) >= HEAD_ROWS or size >= HEAD_BYTES:
            break
    return head, itertools.chain(head, lines)


def decoded(line: Line, place: str) -> str | BadRow:
    """The text of a line, or why it has none."""
    if not line.complete:
        return BadRow(place, "too long", f"more than {len(line.content):,} bytes: {show(line.content)}")
    try:
        return line.content.decode("utf-8")
    except UnicodeDecodeError as error:
        detail = f"byte 0x{line.content[error.start]:02x} at position {error.start + 1}: {show(line.content)}"
        return BadRow(place, "not UTF-8", detail)


def split(lines: Iterator[Line], layout: Layout, name: str) -> Iterator[tuple[str, list[str] | BadRow]]:
    """The place and the cells of each row."""
    if layout.is_quoted:
        yield from _unquoted(lines, layout.delimiter, name)
        return
    for line in lines:
        place = f"{name}:{line.number}"
        text = decoded(line, place)
        yield place, text if isinstance(text, BadRow) else text.split(layout.delimiter)


def _unquoted(lines: Iterator[Line], delimiter: str, name: str) -> Iterator[tuple[str, list[str] | BadRow]]:
    """Rows as the csv module reads them: a row may take several lines. Blank lines are passed over."""
    bad: list[BadRow] = []  # lines of the row that is being read

    def texts() -> Iterator[str]:
        for line in lines:
            place = f"{name}:{line.number}"
            text = decoded(line, place)
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


def _delimiter(file: str, head: list[Line], wanted: Wanted) -> str:
    found = _delimiters(head, wanted)
    if len(found) == 1:
        return next(iter(found))
    candidates = " ".join(map(_shown, DELIMITERS))
    if found:
        raise DataError(
            f"{shown_name(file)} can be read with each of {' '.join(map(_shown, found))} between columns; say which: "
            "delimiter, or --delimiter"
        )
    first = show(head[0].content) if head else "nothing"
    raise DataError(
        f"{shown_name(file)} has none of {candidates} that gives its first rows as many columns, at least "
        f"{len(wanted.fields)}; its first line is {first}. Put texts that hold the delimiter in quotes, or say "
        "delimiter, or --delimiter"
    )


def _delimiters(head: list[Line], wanted: Wanted) -> list[str]:
    """The delimiters that the first rows can be read with: those of a header that has the fields, or the likeliest."""
    least = max(wanted.columns) if wanted.columns else len(wanted.fields)
    fields = {name.casefold() for name in wanted.fields.values()}
    agreeing: dict[str, tuple[bool, bool, float]] = {}
    for delimiter in DELIMITERS:
        rows = list(_first_rows(head, delimiter))
        if not rows:
            continue
        width, count = Counter(map(len, rows)).most_common(1)[0]
        has_fields = fields <= {cell.strip().casefold() for cell in rows[0]}
        if width >= max(2, least) and count / len(rows) >= AGREE:
            agreeing[delimiter] = (has_fields, width == len(wanted.fields), count / len(rows))
    return [delimiter for delimiter, rank in agreeing.items() if rank == max(agreeing.values())]


def _first_rows(head: list[Line], delimiter: str) -> Iterator[list[str]]:
    """Rows of the first lines that can be read so; the last may be cut off within quotes."""
    layout = Layout(delimiter, True, None, [], None)
    return (cells for _, cells in split(iter(head), layout, "") if not isinstance(cells, BadRow))


def _has_quotes(head: list[Line]) -> bool:
    """Whether the cells of TSV are quoted, as CSV quotes them: all of them, or those with a quote written twice."""
    texts = (text for line in head if not isinstance(text := decoded(line, ""), BadRow))
    rows = [[cell for cell in text.split("\t") if cell] for text in texts]
    if any('""' in cell[1:-1] and _is_quoted(cell) for row in rows for cell in row):
        return True
    body = rows if rows and all(map(_is_quoted, rows[0])) else rows[1:]
    return len(body) >= 2 and all(_is_quoted(cell) for row in body for cell in row)


def _is_quoted(cell: str) -> bool:
    ends = len(cell) >= 2 and cell[0] == cell[-1] == '"'
    return ends and '"' not in cell[1:-1].replace('""', "")


def _is_header(names: Iterable[str]) -> bool:
    """Whether a row is nothing but different names of fields or languages, such as "en" and "it_IT"."""
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
    rows = split(iter(head), layout, "")
    first = next((c for _, c in rows if not isinstance(c, BadRow) and len(c) > max(layout.columns)), None)
    parts.append(f"columns {' and '.join(str(i + 1) for i in layout.columns)}, no header")
    said = f"; the first row is {' and '.join(show(first[i]) for i in layout.columns)}" if first else ""
    return ", ".join(parts) + said


def _shown(delimiter: str) -> str:
    return "tab" if delimiter == "\t" else repr(delimiter)


def _hint(cells: int, wanted: Wanted, layout: Layout) -> str:
    if cells == 1 and layout.delimiter == "\t":
        return "; CSV is read with format='csv' (--format csv), texts in two files with parallel (--parallel)"
    if cells > len(wanted.fields) and wanted.columns is None:
        return "; the columns that are wanted are said by their numbers, from 1, instead of names of fields"
    return ""
