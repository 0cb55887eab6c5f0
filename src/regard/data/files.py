"""Reading of files as numbered lines: plain, gzip or zstd, by their first bytes; long lines are truncated."""

import difflib
import gzip
import io
import itertools
import os
import stat
import sys
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, NamedTuple, cast

from regard.errors import ConfigError, DataError

STANDARD_INPUT = "-"
LONGEST_LINE = 2**20  # bytes
SHOWN = 80  # characters of a bad row in a message
NAMES_SHOWN = 8
GZIP, ZSTD = b"\x1f\x8b", b"\x28\xb5\x2f\xfd"  # first bytes of such files
UTF8_MARK = b"\xef\xbb\xbf"
UTF16_MARKS = (b"\xff\xfe", b"\xfe\xff")


class Line(NamedTuple):
    """A line without its end."""

    number: int  # from 1
    content: bytes
    complete: bool  # False if it was truncated to LONGEST_LINE


def read_lines(
    file: str, *, at: Path | None = None, max_bytes: int = LONGEST_LINE, expected: str = "a row"
) -> Iterator[Line]:
    """The lines of a file, of a pipe, or of standard input ("-").

    Args:
        file: its path, which errors name.
        at: path of its copy, if it can be read only once; None to read the file itself.
        max_bytes: maximum number of bytes of a line; longer lines are truncated.
        expected: what a line should hold, for the message about an empty file.

    Yields:
        Lines, their numbers counting from 1. An end of line is LF or CR LF; a byte order mark of UTF-8 is dropped.

    Raises:
        DataError: a file that is missing, empty, a directory, damaged, or in UTF-16.
        ConfigError: a zstd file where the package for it is missing.
    """
    number = 0
    try:
        with open_unpacked(file, at) as stream:
            while content := stream.readline(max_bytes + 1):
                number += 1
                complete = len(content) <= max_bytes or content.endswith(b"\n")
                rest = content
                while not rest.endswith(b"\n") and len(rest) > max_bytes:
                    rest = stream.readline(max_bytes + 1)
                if number == 1:
                    content = without_mark(file, content)
                yield Line(number, content[:max_bytes].removesuffix(b"\n").removesuffix(b"\r"), complete)
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"{shown_name(file)} cannot be read beyond line {number}: {error}") from error
    if not number:
        raise DataError(f"{shown_name(file)} is empty; expected {expected} a line")


@contextmanager
def open_unpacked(file: str, at: Path | None = None) -> Iterator[IO[bytes]]:
    """Open a file for reading, decompressed; the compression is recognized by its first bytes."""
    with open_packed(file, at) as raw:
        start = raw.peek(4)[:4]
        if start.startswith(GZIP):
            with gzip.open(raw) as unpacked:
                yield cast(IO[bytes], unpacked)
        elif start == ZSTD:
            with _zstd(file, raw) as unpacked:
                yield unpacked
        else:
            yield raw


@contextmanager
def open_packed(file: str, at: Path | None = None) -> Iterator[io.BufferedReader]:
    """Open a file for reading, without decompression."""
    if file == STANDARD_INPUT and at is None:
        if sys.stdin is None:
            raise DataError("standard input is closed; give a file, or a pipe")
        stdin = io.BufferedReader(cast(io.RawIOBase, sys.stdin.buffer))
        yield cast(io.BufferedReader, stdin)
        stdin.detach()  # standard input stays open for others
    else:
        check_file(str(at or file))
        with Path(at or file).open("rb") as stream:
            yield stream


def is_stream(file: str) -> bool:
    """Whether a file can be read only once: standard input, or a pipe."""
    return file == STANDARD_INPUT or not stat.S_ISREG(Path(file).stat().st_mode)


def check_file(file: str) -> None:
    """Raise DataError unless the file exists; the message suggests a similar name."""
    if file == STANDARD_INPUT:
        return
    path = Path(file)
    try:
        mode = path.stat().st_mode
    except (FileNotFoundError, NotADirectoryError) as error:
        if not path.parent.is_dir():
            raise DataError(f"there is no file {show(file)}: its folder {show(str(path.parent))} is missing") from error
        raise DataError(f"there is no file {show(file)}; {_nearest_name(path)}") from error
    except (OSError, ValueError) as error:
        raise DataError(f"{show(file)} cannot be read: {error}") from error
    if stat.S_ISDIR(mode):
        raise DataError(f"{file} is a directory; expected a file. It holds {_listing(_names(path))}")


def show(content: str | bytes) -> str:
    """A row, quoted and shortened for a message."""
    text = content if isinstance(content, str) else content[: 4 * SHOWN].decode("utf-8", "backslashreplace")
    return repr(text if len(text) <= SHOWN else text[:SHOWN] + "…")


def shown_name(file: str) -> str:
    """The name of a file in messages."""
    return "standard input" if file == STANDARD_INPUT else file


def _names(folder: Path) -> list[str]:
    with os.scandir(folder) as entries:
        return sorted(entry.name for entry in itertools.islice(entries, 1000))


def _nearest_name(path: Path) -> str:
    names = _names(path.parent)
    close = difflib.get_close_matches(path.name, names, n=1, cutoff=0.5)
    return f"did you mean {close[0]!r}?" if close else f"the folder holds {_listing(names)}"


def _listing(names: list[str]) -> str:
    return ", ".join(names[:NAMES_SHOWN]) + (", …" if len(names) > NAMES_SHOWN else "") or "nothing"


def without_mark(file: str, content: bytes) -> bytes:
    """The first line of a file without a byte order mark of UTF-8; DataError if it has one of UTF-16."""
    if content.startswith(UTF16_MARKS):
        raise DataError(f"{shown_name(file)} is in UTF-16; expected UTF-8: iconv -f UTF-16 -t UTF-8 converts it")
    return content.removeprefix(UTF8_MARK)


def _zstd(file: str, raw: io.BufferedReader) -> IO[bytes]:
    try:
        from pyarrow import CompressedInputStream
    except ImportError as error:
        raise ConfigError(f"{shown_name(file)} is packed with zstd: pip install regard[data] to read it") from error
    return io.BufferedReader(CompressedInputStream(raw, "zstd"))
