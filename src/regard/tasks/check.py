"""Checks of the texts that runners receive."""

from collections.abc import Sequence

from regard.errors import DataError


def check_texts(texts: Sequence[str]) -> None:
    """Raise DataError unless `texts` is a list of texts that are valid Unicode."""
    if isinstance(texts, str) or not all(isinstance(text, str) for text in texts):
        raise DataError(f"texts={_show(texts)} must be a list of texts; put one text into a list of its own")
    for number, text in enumerate(texts, start=1):
        try:
            text.encode()
        except UnicodeEncodeError as error:
            raise DataError(f"text {number} is not valid Unicode at character {error.start}: {_show(text)}") from error


def _show(x: object) -> str:
    shown = ascii(x)
    return shown if len(shown) <= 60 else f"{shown[:57]}..."
