"""Names of pictures as inputs of a verb, beside texts."""

import itertools
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from regard.cli.output import print_error
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


def results_of(
    runner: Any, names: Iterable[str], run: Callable[["list[Pixels]"], Iterable[Any]], batch_size: int
) -> Iterator[tuple[str, Any]]:
    """The result of each picture, a batch at a time.

    A picture that cannot be read has the result None, and its error is written to standard error.

    Args:
        runner: a model that reads pictures.
        names: files of pictures.
        run: gives the result of each picture of a list.
        batch_size: pictures per batch.

    Yields:
        Name and result of each picture, in order.

    Raises:
        DataError: pictures that cannot be read, after the last of them.
    """
    failed, iterator = 0, iter(names)
    while chunk := list(itertools.islice(iterator, batch_size)):
        pictures = [_read(runner, name) for name in chunk]
        results = iter(run([pixels for pixels in pictures if pixels is not None]))
        for name, pixels in zip(chunk, pictures, strict=True):
            yield name, None if pixels is None else next(results)
        failed += sum(pixels is None for pixels in pictures)
    if failed:
        raise DataError(f"{failed:,} of the pictures could not be read; see the lines above")


def _read(runner: Any, name: str) -> "Pixels | None":
    """The pixels of a picture; None, and a line on standard error, if it cannot be read."""
    try:
        pixels: Pixels = runner.read(name)
    except DataError as error:
        print_error(str(error))
        return None
    return pixels
