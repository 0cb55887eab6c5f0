"""Lines come out whole and numbered, however a file is packed, and no file exhausts the memory."""

import gzip
import io
import os
import sys
import threading
import tracemalloc
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from regard.data.files import LONGEST_LINE, Line, check_file, is_stream, read_lines
from regard.errors import DataError

TEXT = "uno\tdue\nperché\ttre\n".encode()
LINES = [Line(1, b"uno\tdue", True), Line(2, "perché\ttre".encode(), True)]


def zstd(content: bytes) -> bytes:
    pyarrow = pytest.importorskip("pyarrow")
    packed: bytes = pyarrow.compress(content, codec="zstd", asbytes=True)
    return packed


@pytest.mark.parametrize(
    "pack",
    [bytes, gzip.compress, zstd, lambda text: gzip.compress(text[:9]) + gzip.compress(text[9:])],
    ids=["plain", "gzip", "zstd", "gzip-in-two"],
)
def test_a_file_is_unpacked_by_what_it_starts_with(tmp_path: Path, pack) -> None:
    path = tmp_path / "pairs.tsv"
    path.write_bytes(pack(TEXT))
    assert list(read_lines(str(path))) == LINES


@pytest.mark.parametrize(
    "content",
    [TEXT[:-1], TEXT.replace(b"\n", b"\r\n"), b"\xef\xbb\xbf" + TEXT],
    ids=["no-last-end", "crlf", "byte-order-mark"],
)
def test_ends_of_lines_and_marks_are_dropped(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "pairs.tsv"
    path.write_bytes(content)
    assert list(read_lines(str(path))) == LINES


def test_standard_input_is_read_and_stays_open(monkeypatch: pytest.MonkeyPatch) -> None:
    stdin = io.TextIOWrapper(io.BytesIO(gzip.compress(TEXT)))
    monkeypatch.setattr(sys, "stdin", stdin)
    assert list(read_lines("-")) == LINES
    assert not stdin.closed
    assert not stdin.buffer.closed


def test_a_pipe_is_read(tmp_path: Path) -> None:
    path = tmp_path / "pipe"
    os.mkfifo(path)
    writer = threading.Thread(target=path.write_bytes, args=(TEXT,))
    writer.start()
    assert is_stream(str(path))
    assert list(read_lines(str(path))) == LINES
    writer.join()


@pytest.mark.parametrize(
    ("max_bytes", "complete"), [(3, [False, False, True]), (5, [True, False, True]), (6, [True, True, True])]
)
def test_a_line_is_cut_where_it_is_too_long(tmp_path: Path, max_bytes: int, complete: list[bool]) -> None:
    path = tmp_path / "x.tsv"
    path.write_bytes(b"01234\n012345\n0")
    lines = list(read_lines(str(path), max_bytes=max_bytes))
    assert [line.number for line in lines] == [1, 2, 3]
    assert [line.content for line in lines] == [b"01234"[:max_bytes], b"012345"[:max_bytes], b"0"]
    assert [line.complete for line in lines] == complete


@pytest.mark.parametrize("pack", [bytes, gzip.compress])
def test_a_line_of_ten_million_characters_takes_little_memory(tmp_path: Path, pack) -> None:
    path = tmp_path / "x.tsv"
    path.write_bytes(pack(b"a" * 10_000_000 + b"\nb\tc\n"))
    tracemalloc.start()
    lines = [(line.number, len(line.content), line.complete) for line in read_lines(str(path))]
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert lines == [(1, LONGEST_LINE, False), (2, 3, True)]
    assert peak < 8 * LONGEST_LINE


@pytest.mark.parametrize("pack", [gzip.compress, zstd])
def test_a_file_cut_off_names_the_last_line_read(tmp_path: Path, pack) -> None:
    path = tmp_path / "pairs.tsv.gz"
    packed = pack(b"".join(b"%d\n" % (n * n) for n in range(100_000)))
    path.write_bytes(packed[: len(packed) // 2])
    numbers = [0]
    with pytest.raises(DataError) as caught:
        numbers.extend(line.number for line in read_lines(str(path)))
    assert numbers[-1] > 1000
    assert str(caught.value).startswith(f"{path} cannot be read beyond line {numbers[-1]}: ")


@given(st.binary(max_size=60), st.sampled_from([b"", b"\x1f\x8b\x08\x00", b"\x28\xb5\x2f\xfd", b"\xef\xbb\xbf"]))
def test_any_bytes_are_lines_or_one_clear_error(tmp_path_factory: pytest.TempPathFactory, content, start) -> None:
    path = tmp_path_factory.getbasetemp() / "any.tsv"
    path.write_bytes(start + content)
    try:
        lines = list(read_lines(str(path)))
    except DataError as error:
        assert str(path) in str(error)  # noqa: PT017
    else:
        assert b"\n".join(line.content for line in lines).replace(b"\r", b"").replace(b"\n", b"") == (
            (start + content).removeprefix(b"\xef\xbb\xbf").replace(b"\r", b"").replace(b"\n", b"")
        )


def test_a_missing_file_is_answered_with_the_nearest_name(tmp_path: Path) -> None:
    for number in range(1000):
        (tmp_path / f"{number}").touch()
    (tmp_path / "train.tsv").touch()
    with pytest.raises(DataError) as caught:
        check_file(str(tmp_path / "zzz"))
    assert len(str(caught.value)) < 300
    with pytest.raises(DataError, match="did you mean '17'"):
        check_file(str(tmp_path / "17x"))
