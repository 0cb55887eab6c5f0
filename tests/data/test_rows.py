"""Pairs from every kind of file; rows that are none stop the reading with their place, or are counted."""

import gzip
import io
import json
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from regard.data.files import LONGEST_LINE
from regard.data.record import LONGEST_TEXT
from regard.data.rows import Pair, read_pairs
from regard.errors import DataError

PAIRS = [("one", "uno"), ("two words", "due parole"), ("naïve", "“ingenuo”")]


def texts(reader) -> list[tuple[str, str]]:
    return [(pair.source, pair.target) for pair in reader]


def write(path: Path, content: str | bytes) -> str:
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return str(path)


def test_tsv_pairs_and_their_row_numbers(tmp_path: Path) -> None:
    file = write(tmp_path / "pairs.tsv", "one\tuno\n two words \t due parole\r\n")
    assert list(read_pairs(file)) == [Pair("one", "uno", f"{file}:1"), Pair("two words", "due parole", f"{file}:2")]


def test_several_files_of_several_kinds(tmp_path: Path) -> None:
    tsv = write(tmp_path / "a.TSV.gz", gzip.compress(b"one\tuno\n"))
    jsonl = write(tmp_path / "b.jsonl", json.dumps({"source": "two words", "target": "due parole", "n": 1}))
    assert texts(read_pairs([tsv, Path(jsonl)])) == PAIRS[:2]


def test_columns_are_counted_from_one(tmp_path: Path) -> None:
    file = write(tmp_path / "x.tsv", "7\tuno\tone\n8\tdue parole\ttwo words\n9\tmore\n")
    reader = read_pairs(file, columns=(3, 2), skip_bad_rows=True)
    assert texts(reader) == PAIRS[:2]
    assert reader.skipped == {"wrong number of columns": 1}


def test_fields_reach_inside(tmp_path: Path) -> None:
    row = {"translation": {"en": "one", "it": "uno"}}
    file = write(tmp_path / "x.jsonl", json.dumps(row))
    assert texts(read_pairs(file, fields=("translation.en", "translation.it"))) == PAIRS[:1]


def test_parallel_files(tmp_path: Path) -> None:
    english = write(tmp_path / "en.txt", "".join(source + "\n" for source, _ in PAIRS))
    italian = write(tmp_path / "it.txt.gz", gzip.compress("".join(target + "\n" for _, target in PAIRS).encode()))
    assert texts(read_pairs([], parallel=(english, italian))) == PAIRS


def test_standard_input_is_tsv_by_default(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"one\tuno\n")))
    assert list(read_pairs("-")) == [Pair("one", "uno", "standard input:1")]
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b'{"source": "one", "target": "uno"}')))
    assert texts(read_pairs("-", format="jsonl")) == PAIRS[:1]


def test_parquet(tmp_path: Path) -> None:
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    sides = [{"en": source, "it": target} for source, target in PAIRS]
    table = pyarrow.table({"translation": [*sides, {"en": None, "it": "x"}], "n": [1, 2, 3, 4]})
    parquet.write_table(table, tmp_path / "x.parquet")
    reader = read_pairs(tmp_path / "x.parquet", fields=("translation.en", "translation.it"), skip_bad_rows=True)
    assert texts(reader) == PAIRS
    assert reader.skipped == {"not text": 1}


def test_datasets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    datasets = pytest.importorskip("datasets")
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    (tmp_path / "set").mkdir()
    rows = [json.dumps({"source": source, "target": target}) for source, target in PAIRS]
    write(tmp_path / "set" / "train.jsonl", "\n".join(rows))
    write(tmp_path / "set" / "test.jsonl", rows[0])
    datasets.disable_progress_bars()
    name = f"datasets:{tmp_path / 'set'}"
    assert texts(read_pairs(name)) == PAIRS
    assert list(read_pairs(f"{name}:test")) == [Pair("one", "uno", f"{name}:test:1")]


BAD_ROWS = {
    "wrong number of columns": [b"one", b"one\tuno\tein", b""],
    "not UTF-8": [b"na\xefve\tx", b"\xff\tx"],
    "empty source": [b"\tuno", b"  \tuno", "\u200b\ufeff\tuno".encode()],
    "empty target": [b"one\t", "one\t\u00a0\u2003".encode(), "one\t\u00ad \u2060".encode()],
    "NUL character": [b"one\tu\0no", "one\tuno".encode("utf-16-le")],
    "too long": [b"x" * (LONGEST_TEXT + 1) + b"\tuno", b"one\t" + b"x" * LONGEST_LINE],
}


@pytest.mark.parametrize(("reason", "line"), [(reason, line) for reason, lines in BAD_ROWS.items() for line in lines])
def test_a_bad_row_stops_or_is_counted(tmp_path: Path, reason: str, line: bytes) -> None:
    file = write(tmp_path / "x.tsv", b"one\tuno\n" + line + b"\ntwo words\tdue parole\n")
    with pytest.raises(DataError) as caught:
        list(read_pairs(file))
    assert str(caught.value).startswith(f"{file}:2: {reason}: ")
    assert len(str(caught.value)) < 600
    reader = read_pairs(file, skip_bad_rows=True)
    for _ in range(2):  # counted anew by every loop
        assert texts(reader) == PAIRS[:2]
        assert reader.skipped == {reason: 1}


BAD_JSON = {
    "not JSON": ["", "{", "one\tuno", "[" * 100_000, "9" * 10_000, "{'source': 1}"],
    "not an object": ["[1]", "3", '"text"', "null", "NaN"],
    "missing field": ["{}", '{"source": "x"}', json.dumps({"source": "x", **{str(n): n for n in range(5000)}})],
    "not text": [
        '{"source": 1, "target": "x"}',
        '{"source": "x", "target": {"a": "b"}}',
        '{"source": null, "target": "x"}',
    ],
    "half a character": [r'{"source": "\ud800", "target": "x"}'],
    "NUL character": [r'{"source": "a\u0000b", "target": "x"}'],
}


@pytest.mark.parametrize(("reason", "line"), [(reason, line) for reason, lines in BAD_JSON.items() for line in lines])
def test_bad_json(tmp_path: Path, reason: str, line: str) -> None:
    file = write(tmp_path / "x.jsonl", line + "\n")
    with pytest.raises(DataError) as caught:
        list(read_pairs(file))
    assert str(caught.value).startswith(f"{file}:1: {reason}: ")
    assert len(str(caught.value)) < 1500


@given(st.binary(max_size=80), st.sampled_from(["tsv", "jsonl", "parquet"]))
def test_any_bytes_are_pairs_or_one_clear_error(tmp_path_factory: pytest.TempPathFactory, content, kind) -> None:
    if kind == "parquet":
        pytest.importorskip("pyarrow")
    file = write(tmp_path_factory.getbasetemp() / "any", content)
    try:
        pairs = list(read_pairs(file, format=kind, skip_bad_rows=True))
    except DataError as error:
        assert file in str(error)  # noqa: PT017
    else:
        assert all(pair.source and pair.target for pair in pairs)
