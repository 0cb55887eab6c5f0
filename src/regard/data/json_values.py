"""Streaming JSON reader: the items of a list one by one, in bounded memory."""

import codecs
import json
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any, final

from regard.data.files import UTF8_MARK, UTF16_MARKS, open_unpacked, show, shown_name
from regard.errors import DataError

CHUNK = 2**16  # bytes that are read at a time
LONGEST_VALUE = 2**24  # characters of an item
SPACES = " \t\r\n"


def read_values(file: str, at: Path | None = None) -> Iterator[Any]:
    """The items of a JSON list, or concatenated JSON values.

    Args:
        file: its path, which errors name.
        at: path of its copy, if it can be read only once; None to read the file itself.

    Yields:
        Values of JSON types.

    Raises:
        DataError: a file that is not JSON, not UTF-8, or cannot be read.
    """
    name, items = shown_name(file), 0
    try:
        with open_unpacked(file, at) as stream:
            text = _Text(name, stream)
            is_list = text.next_character() == "["
            if is_list:
                text.skip()
            while (character := text.next_character(between="," if is_list else "")) not in ("", "]"):
                yield text.value(items)
                items += 1
            if is_list:
                text.skip()
            if is_list is not bool(character) or text.next_character():
                why = "more follows the list" if character else "the list does not end"
                raise DataError(f"{name} cannot be read as JSON beyond item {items}: {why}")
    except (OSError, EOFError, UnicodeDecodeError, zlib.error) as error:
        raise DataError(f"{name} cannot be read as JSON beyond item {items}: {error}") from error


@final
class _Text:
    """A buffered text of a file, which drops what has been parsed.

    Args:
        name: of the file, for messages.
        stream: its bytes.
    """

    def __init__(self, name: str, stream: IO[bytes]) -> None:
        self._name, self._stream = name, stream
        self._decoder, self._json = codecs.getincrementaldecoder("utf-8")(), json.JSONDecoder()
        self._buffer, self._position, self._ended = "", 0, False
        start = stream.read(CHUNK)
        if start.startswith(UTF16_MARKS):
            raise DataError(f"{name} is in UTF-16; expected UTF-8: iconv -f UTF-16 -t UTF-8 converts it")
        self._add(start.removeprefix(UTF8_MARK))

    def next_character(self, between: str = "") -> str:
        """The next character, skipping spaces and separators in `between`; empty at the end."""
        while True:
            while self._position < len(self._buffer):
                character = self._buffer[self._position]
                if character not in SPACES and character not in between:
                    return character
                self._position += 1
            if not self._more(CHUNK):
                return ""

    def skip(self) -> None:
        """Move past one character."""
        self._position += 1

    def value(self, number: int) -> Any:
        """Parse the value at the current position; `number` is the number of values before it."""
        while True:
            try:
                value, end = self._json.raw_decode(self._buffer, self._position)
            except (ValueError, RecursionError) as error:
                size = len(self._buffer) - self._position
                is_long = not isinstance(error, json.JSONDecodeError) or size > LONGEST_VALUE
                if is_long or not self._more(max(CHUNK, size)):  # doubled: a long value is parsed few times
                    start = show(self._buffer[self._position : self._position + 100])
                    problem = error.msg if isinstance(error, json.JSONDecodeError) else error
                    raise DataError(
                        f"{self._name} cannot be read as JSON beyond item {number}: {problem}: {start}"
                    ) from error
                continue
            if end == len(self._buffer) and self._more(CHUNK):  # a number may go on
                continue
            self._position = end
            return value

    def _more(self, size: int) -> bool:
        """Read more of the file; False at its end."""
        if self._ended:
            return False
        self._buffer, self._position = self._buffer[self._position :], 0
        self._add(self._stream.read(size))
        return True

    def _add(self, content: bytes) -> None:
        self._ended = not content
        self._buffer += self._decoder.decode(content, final=self._ended)
