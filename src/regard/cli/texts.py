"""The texts of a verb: its arguments, the lines of a file, or those of standard input."""

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
    """The texts and the file that they may stand in instead.

    Args:
        about: what the texts are, as the help says it.

    Returns:
        The argument `texts` and the option `--file`.
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
            help="Read the texts from a file, a line each; plain, .gz or .zst; - for standard input.",
        ),
    ]


def texts_of(verb: str, texts: Sequence[str], file: str | None) -> Iterator[str]:
    """The texts that a command line names.

    Args:
        verb: for messages.
        texts: its arguments.
        file: of texts, a line each; None for none.

    Returns:
        The texts; those of standard input as they come.

    Raises:
        UsageError: texts and a file together, or a text that is the name of a file.
        DataError: a file that does not exist. The iterator raises it too, for a line that cannot be used.
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
    """Whether the texts come from a keyboard, a line at a time."""
    return not texts and file in (None, STANDARD_INPUT) and sys.stdin.isatty()


def refuse_file(text: str, instead: str, as_text: str) -> None:
    """Raise UsageError for a text that is the name of a file, which is hardly what was meant by it.

    Args:
        text: an argument.
        instead: the command line that reads the file.
        as_text: one that takes the name for a text.
    """
    if os.path.isfile(text):  # noqa: PTH113 - which takes any text for a name, too long or with NUL
        raise click.UsageError(f"{text} is a file; to read it: {instead}; to take its name for the text: {as_text}")


def file_texts(file: str) -> Iterator[str]:
    """The lines of a file, plain or packed.

    Args:
        file: its path.

    Yields:
        The lines, without their ends.

    Raises:
        DataError: a file that cannot be read or is empty, a line that is too long or not UTF-8.
    """
    for line in read_lines(file, expected="a text"):
        place = f"{file}:{line.number}"
        if not line.complete:
            raise DataError(f"{place}: more than {LONGEST_LINE:,} bytes in a line: {show(line.content)}")
        try:
            yield line.content.decode()
        except UnicodeDecodeError as error:
            raise DataError(f"{place}: not UTF-8 at byte {error.start + 1}: {show(line.content)}") from error
