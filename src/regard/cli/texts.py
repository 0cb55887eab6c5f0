"""Texts of a verb: its arguments, the lines of a file, or the lines of standard input."""

import os
import shlex
import sys
from collections.abc import Iterator, Sequence

import click

from regard.cli.command import FILE, Argument, Option
from regard.cli.shared import read_texts
from regard.data.files import LONGEST_LINE, STANDARD_INPUT, check_file, read_lines, show
from regard.errors import DataError


def text_params(about: str) -> list[click.Parameter]:
    """Argument `texts` and option `--file` of a verb.

    Args:
        about: what the texts are, for the help.
    """
    return [
        Argument(
            "texts",
            about=f"{about}; by default, the lines of standard input.",
            nargs=-1,
            metavar="[TEXT]...",
            callback=lambda ctx, param, texts: () if texts == (STANDARD_INPUT,) else texts,
        ),
        Option(
            ["--file"],
            type=FILE,
            metavar="FILE",
            help="Read the texts from a file, one per line; plain, .gz or .zst; - for standard input.",
        ),
    ]


def texts_of(verb: str, texts: Sequence[str], file: str | None) -> Iterator[str]:
    """Texts of a command line.

    Args:
        verb: name of the verb, for messages.
        texts: arguments of the verb.
        file: name of a file of texts, one per line; None for none.

    Returns:
        Iterator over the texts; those of standard input as they arrive.

    Raises:
        UsageError: texts and a file together, or a text that is the name of a file.
        DataError: a missing file. The iterator raises it too, for a line that cannot be read.
    """
    if file is not None and texts:
        raise click.UsageError("a text and --file exclude each other; give one of them")
    if file not in (None, STANDARD_INPUT):
        check_file(file)
        return file_texts(file)
    for text in texts:
        name = shlex.quote(text)
        refuse_file(text, f"regard {verb} --file {name}", f"echo {name} | regard {verb}")
    return iter(texts) if texts else read_texts()


def is_typed(texts: Sequence[str], file: str | None) -> bool:
    """Whether the texts are typed on a keyboard, line by line."""
    return not texts and file in (None, STANDARD_INPUT) and sys.stdin.isatty()


def refuse_file(text: str, instead: str, as_text: str) -> None:
    """Raise UsageError for a text that is the name of a file, which is probably a mistake.

    Args:
        text: an argument.
        instead: command line that reads the file.
        as_text: command line that reads the name as a text.
    """
    if os.path.isfile(text):  # noqa: PTH113 - it accepts any text, even too long or with NUL
        raise click.UsageError(
            f"{text} is a file; to read the file: {instead}; to read its name as the text: {as_text}"
        )


def file_texts(file: str) -> Iterator[str]:
    """Lines of a plain or compressed file.

    Args:
        file: path.

    Yields:
        The lines without line breaks.

    Raises:
        DataError: a file that cannot be read or is empty, or a line that is too long or not UTF-8.
    """
    for line in read_lines(file, expected="a text"):
        place = f"{file}:{line.number}"
        if not line.complete:
            raise DataError(f"{place}: the line is longer than {LONGEST_LINE:,} bytes: {show(line.content)}")
        try:
            yield line.content.decode()
        except UnicodeDecodeError as error:
            raise DataError(f"{place}: not UTF-8 at byte {error.start + 1}: {show(line.content)}") from error
