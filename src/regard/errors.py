"""What can go wrong, by kind. Every message names the value it got, what it expected and what to change."""

import difflib
from collections.abc import Iterable


class RegardError(Exception):
    """The base of every error that regard raises on purpose."""


class ShapeError(RegardError, ValueError):
    """Tensors whose shapes, dtypes or devices do not go together."""


class ConfigError(RegardError, ValueError):
    """A setting that is unknown, out of range, or in contradiction with another."""


class DataError(RegardError, ValueError):
    """Input data that cannot be used: a bad row, a wrong encoding, an empty file."""


class CheckpointError(RegardError):
    """Saved weights that are missing, damaged, or made for another model."""


class UnsupportedError(RegardError, NotImplementedError):
    """A combination that means nothing, or that the requested backend does not compute."""


def nearest(name: str, known: Iterable[str]) -> str:
    """A sentence that lists the known names, the nearest to `name` first asked about."""
    names = list(known)
    by_lower = {known.lower(): known for known in names}
    close = difflib.get_close_matches(str(name).lower(), by_lower, n=1, cutoff=0.5)
    guess = f"did you mean {by_lower[close[0]]!r}? " if close else ""
    return f"{guess}{'Known' if guess else 'known'}: {', '.join(names)}"
