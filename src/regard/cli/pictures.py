"""Names of pictures as inputs of a verb, beside texts."""

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from regard.errors import DataError, UnsupportedError

if TYPE_CHECKING:
    from regard.vision.pictures import Pixels


def are_pictures(texts: Sequence[str]) -> bool:
    """Whether the arguments name pictures: one at least is a file whose name ends as that of a picture."""
    from regard.vision.pictures import is_picture_name

    return any(is_picture_name(Path(text)) and os.path.isfile(text) for text in texts)  # noqa: PTH113 - any text may come


def check_reads(runner: Any, verb: str, *, pictures: bool) -> bool:
    """Whether the model reads pictures; UnsupportedError if it reads texts and the arguments name pictures."""
    reads = getattr(runner, "reads_pictures", False)
    if pictures and not reads:
        raise UnsupportedError(
            f"the arguments of regard {verb} are pictures, and the model, of the kind {type(runner).__name__}, reads "
            "texts; give a model that reads pictures: --model"
        )
    return bool(reads)


def readable(runner: Any, names: Sequence[str], failed: list[str]) -> Iterator[tuple[str, "Pixels"]]:
    """Names and pixels of the readable pictures; others are reported on standard error and added to `failed`."""
    for name in names:
        try:
            yield name, runner.read(name)
        except DataError as error:
            click.echo(f"error: {error}", err=True)
            failed.append(name)
