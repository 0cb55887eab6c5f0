"""Tables as people have them: any delimiter, quotes, header; what was taken is noted, and what is unclear is asked."""

import csv
import io
import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from regard.data.reader import RecordReader
from regard.data.rows import Pair, read_pairs
from regard.errors import ConfigError, DataError

PAIRS = [
    ("Hello, world", "Ciao; mondo"),
    ('He said "yes"', "Ha detto\n«sì»"),
    ("one", "uno"),
    ("two|three", "due\ttre"),
]


def texts(reader) -> list[tuple[str, str]]:
    return [(pair.source, pair.target) for pair in reader]


def write(path: Path, content: str, encoding: str = "utf-8") -> str:
    path.write_bytes(content.encode(encoding))
    return str(path)


def table(rows, *, delimiter=",", header=(), quoting=csv.QUOTE_MINIMAL, end="\r\n") -> str:
    text = io.StringIO(newline="")
    writer = csv.writer(text, delimiter=delimiter, quoting=quoting, lineterminator=end)
    writer.writerows([header, *rows] if header else rows)
    return text.getvalue()


@pytest.mark.parametrize("quoting", [csv.QUOTE_MINIMAL, csv.QUOTE_ALL])
@pytest.mark.parametrize(
    "header", [(), ("source", "target"), ("Source ", "TARGET"), ("en", "it"), ("English", "Italiano")]
)
@pytest.mark.parametrize("delimiter", list(",;\t|"))
def test_csv_with_any_delimiter_header_and_quotes(tmp_path: Path, delimiter, header, quoting) -> None:
    file = write(tmp_path / "x.csv", table(PAIRS, delimiter=delimiter, header=header, quoting=quoting))
    reader = read_pairs(file)
    assert texts(reader) == PAIRS
    assert f"read as CSV, delimiter {'tab' if delimiter == chr(9) else repr(delimiter)}" in reader.notes[file]
    assert ("no header" in reader.notes[file]) is not bool(header)


def test_the_note_says_what_was_taken(tmp_path: Path) -> None:
    rows = [(str(i), source, target) for i, (source, target) in enumerate(PAIRS)]
    file = write(tmp_path / "x.csv", table(rows, delimiter=";", header=("n", "english", "italiano")))
    reader = read_pairs(file, fields=("English", "italiano"))
    assert texts(reader) == PAIRS
    assert reader.notes == {file: "read as CSV, delimiter ';', fields 'english' and 'italiano' of its header"}
    file = write(tmp_path / "y.csv", table(PAIRS))
    reader = read_pairs(file)
    list(reader)
    expected = (
        "read as CSV, delimiter ',', columns 1 and 2, no header; the first row is 'Hello, world' and 'Ciao; mondo'"
    )
    assert reader.notes == {file: expected}


def test_columns_by_number_pass_a_header_over(tmp_path: Path) -> None:
    rows = [(target, str(i), source) for i, (source, target) in enumerate(PAIRS)]
    for name in ("x.csv", "x.tsv"):
        delimiter = "," if name == "x.csv" else "\t"
        content = table(rows, delimiter=delimiter, header=("Italian", "remark", "English"), quoting=csv.QUOTE_ALL)
        reader = read_pairs(write(tmp_path / name, content), columns=(3, 1))
        assert texts(reader) == PAIRS
        assert "'English' and 'Italian'" in next(iter(reader.notes.values()))


def test_row_numbers_are_those_of_first_lines(tmp_path: Path) -> None:
    file = write(tmp_path / "x.csv", 'source,target\n"a\n\nb",c\n\nd,e\n')
    assert list(read_pairs(file)) == [Pair("a\n\nb", "c", f"{file}:2"), Pair("d", "e", f"{file}:6")]


def test_a_header_in_tsv_is_no_pair(tmp_path: Path) -> None:
    for header in ("source\ttarget", "en\tit_IT", "English\tItalian", "src\ttgt"):
        file = write(tmp_path / "x.tsv", f"{header}\none\tuno\n")
        reader = read_pairs(file)
        assert texts(reader) == [("one", "uno")]
        first, second = header.split("\t")
        assert reader.notes == {file: f"read as TSV, fields {first!r} and {second!r} of its header"}
    file = write(tmp_path / "x.tsv", "7\ten\tone\tit\n8\tuno\tsource\ttarget\n")
    assert texts(read_pairs(file, columns=(3, 4))) == [("one", "it"), ("source", "target")]


def test_quotes_in_tsv_are_taken_off_where_they_are_quotes(tmp_path: Path) -> None:
    file = write(tmp_path / "x.tsv", table(PAIRS, delimiter="\t"))
    reader = read_pairs(file)
    assert texts(reader) == PAIRS
    assert "read as TSV, texts in quotes" in reader.notes[file]
    spoken = '"Yes," he said.\t«Sì», disse.\n"No."\t"No."\nA 5" disk\tUn disco da 5"\n'
    reader = read_pairs(write(tmp_path / "y.tsv", spoken))
    assert texts(reader) == [tuple(line.split("\t")) for line in spoken.splitlines()]
    assert not reader.notes


@pytest.mark.parametrize("name", ["x.txt", "-"])
def test_text_is_what_its_first_rows_are(tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    objects = [{"source": source, "target": target} for source, target in PAIRS]
    contents = {
        "CSV": table(PAIRS, delimiter=";", header=("source", "target")),
        "TSV": table(PAIRS, delimiter="\t"),
        "JSON, an object a line": "".join(json.dumps(row) + "\n" for row in objects),
        "JSON, a list": json.dumps(objects, indent=1),
    }
    for kind, content in contents.items():
        file = name if name == "-" else write(tmp_path / name, content)
        monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(content.encode())))
        reader = read_pairs(file, format="json" if (name, kind) == ("-", "JSON, a list") else None)
        assert texts(reader) == PAIRS
        assert name == "-" or f"read as {kind}" in reader.notes[file]


@pytest.mark.parametrize("indent", [None, 2])
def test_a_list_of_objects(tmp_path: Path, indent) -> None:
    rows = [{"translation": {"en": f"text {i}", "it": "testo " * (i % 7000)}} for i in range(1, 400)]
    file = write(tmp_path / "x.json", "\ufeff" + json.dumps(rows, indent=indent))
    reader = read_pairs(file, fields=("translation.en", "translation.it"))
    assert texts(reader) == [(row["translation"]["en"], row["translation"]["it"].strip()) for row in rows]
    assert list(reader)[-1].place == f"{file}:399"


@given(st.recursive(st.none() | st.integers() | st.floats(allow_nan=False) | st.text(), st.lists, max_leaves=9))
def test_any_value_comes_out_of_a_list(tmp_path_factory, value) -> None:
    file = write(tmp_path_factory.getbasetemp() / "any.json", json.dumps([{"a": value}, {"a": 7}]))
    reader = RecordReader(fields={"a": "a"}, convert=lambda record: record, files=(file,))
    assert [record.values for record in reader] == [{"a": value}, {"a": 7}]


def test_records_of_other_fields_from_every_format(tmp_path: Path) -> None:
    """A job with a text and a label reads the same files: as they name the fields, or by columns."""
    rows = [("good, really", "plus"), ("bad", "minus")]
    objects = [{"review": {"body": text}, "stars": label} for text, label in rows]
    contents = {
        "x.csv": table([(label, text) for text, label in rows], header=("stars", "review.body")),
        "x.tsv": table(
            [(text, "?", label) for text, label in rows], delimiter="\t", header=("review.body", "", "stars")
        ),
        "x.jsonl": "\n".join(map(json.dumps, objects)),
        "x.json": json.dumps(objects),
    }
    for name, content in contents.items():
        file = write(tmp_path / name, content)
        fields = {"text": "review.body", "label": "stars"}
        reader = RecordReader(fields=fields, convert=lambda record: record, files=(file,))
        assert [(record.values["text"], record.values["label"]) for record in reader] == rows, name


word = st.text(st.characters(exclude_categories=["Cs", "Cc"]) | st.sampled_from(',;|"\t\n'), min_size=1, max_size=12)
side = word.map(lambda text: f"a{text}b")  # spaces around a text are taken off


@given(st.lists(st.tuples(side, side), min_size=1, max_size=6), st.sampled_from(",;|\t"))
def test_what_the_csv_module_writes_is_read(tmp_path_factory, rows, delimiter) -> None:
    content = table(rows, delimiter=delimiter, header=("source", "target"), end="\n")
    file = write(tmp_path_factory.getbasetemp() / "any.csv", content)
    reader = read_pairs(file)
    assert texts(reader) == rows
    assert f"delimiter {'tab' if delimiter == chr(9) else repr(delimiter)}" in reader.notes[file]


@given(st.binary(max_size=120), st.sampled_from(["csv", "json"]))
def test_any_bytes_are_pairs_or_one_clear_error(tmp_path_factory, content, kind) -> None:
    path = tmp_path_factory.getbasetemp() / "any"
    path.write_bytes(content)
    try:
        pairs = list(read_pairs(path, format=kind, skip_bad_rows=True))
    except DataError as error:
        assert str(path) in str(error)  # noqa: PT017
    else:
        assert all(pair.source and pair.target for pair in pairs)


BAD = {
    "wrong number of columns": ["three,cells,here"],
    "not CSV": ['"a" b,c', '"a""'],
    "empty target": ['a,""', "a,"],
}


@pytest.mark.parametrize(("reason", "line"), [(reason, line) for reason, lines in BAD.items() for line in lines])
def test_a_bad_row_stops_or_is_counted(tmp_path: Path, reason: str, line: str) -> None:
    good = "".join(f"source {i},target {i}\n" for i in range(20))
    file = write(tmp_path / "x.csv", f"{good}{line}\n")
    with pytest.raises(DataError) as caught:
        list(read_pairs(file))
    assert str(caught.value).startswith(f"{file}:21: {reason}: ")
    reader = read_pairs(file, skip_bad_rows=True)
    assert len(list(reader)) == 20
    assert reader.skipped == {reason: 1}


def test_bytes_that_are_not_utf8_are_reported_by_row(tmp_path: Path) -> None:
    file = write(tmp_path / "x.csv", 'source,target\n"one\nmore",uno\nperché,why\n', encoding="latin-1")
    reader = read_pairs(file, skip_bad_rows=True)
    assert texts(reader) == [("one\nmore", "uno")]
    assert reader.skipped == {"not UTF-8": 1}
    with pytest.raises(DataError, match=r"x\.csv:4: not UTF-8: byte 0xe9 at position 6"):
        list(read_pairs(file))


@pytest.mark.parametrize(
    ("content", "options", "message"),
    [
        ("a,b;c\nd,e;f\n", {}, "can be read with each of ',' ';' between columns; say which: delimiter"),
        (
            "one text\nanother\n",
            {},
            "has none of ',' ';' tab '|' that gives its first rows as many columns, at least 2",
        ),
        ("english,italian,note\na,b,c\n", {"fields": ("en", "it")}, "has no column 'en'; its first row is 'english', "),
        ("id,en,it\n1,a,b\n", {}, "has no column 'source'; its first row is 'id', 'en', 'it'; set the fields"),
        ("1,a,b\n2,c,d\n", {}, "expected 2, with ',' between: '1,a,b'; select columns by their numbers"),
    ],
)
def test_what_is_unclear_is_asked(tmp_path: Path, content: str, options, message: str) -> None:
    with pytest.raises(DataError) as caught:
        list(read_pairs(write(tmp_path / "x.csv", content), **options))
    assert message in str(caught.value)


def test_a_delimiter_that_is_said(tmp_path: Path) -> None:
    file = write(tmp_path / "x.csv", "a,b;c\nd,e;f\n")
    assert texts(read_pairs(file, delimiter=";")) == [("a,b", "c"), ("d,e", "f")]
    assert texts(read_pairs(write(tmp_path / "x.tsv", "a:b\n"), delimiter=":")) == [("a", "b")]


def test_two_files_of_plain_texts_look_parallel(tmp_path: Path) -> None:
    english, italian = "Hello, world.\nYes.\nOne; two.\n", "Ciao, mondo.\nSì, certo.\nUno.\n"
    for names in (("a.en", "a.it"), ("en.txt", "it.txt"), ("a", "b")):
        files = [write(tmp_path / name, content) for name, content in zip(names, (english, italian), strict=True)]
        with pytest.raises(ConfigError) as caught:
            read_pairs(files)
        assert f"look parallel: one text a line in each; say --parallel {files[0]} {files[1]}" in str(caught.value)
        assert len(list(read_pairs([], parallel=tuple(files)))) == 3
    tables = [write(tmp_path / name, f"{name}\tx\n") for name in ("1.txt", "2.txt")]
    assert len(list(read_pairs(tables))) == 2


def test_a_name_that_says_nothing_needs_a_format(tmp_path: Path) -> None:
    file = write(tmp_path / "pairs.dat", table(PAIRS))
    with pytest.raises(ConfigError, match="give format, or --format: tsv, csv, jsonl, json, parquet"):
        read_pairs(file)
    assert texts(read_pairs(file, format="csv")) == PAIRS
    with pytest.raises(ConfigError, match=r"is a spreadsheet \(xlsx\); save it as CSV"):
        read_pairs(write(tmp_path / "pairs.xlsx", "PK"))
