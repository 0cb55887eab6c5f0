"""Exception classes. Every message names the value it got, what it expected and what to change."""

from collections.abc import Iterable

LEAST_BEGINNING = 3  # letters that two names have in common at their beginning, to be near by that
COMPARED = 60  # letters of a name


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


def nearest(name: str, options: Iterable[str]) -> str:
    """A sentence that lists the known names, the nearest to `name` first asked about, if one is near."""
    names = list(options)
    typed = str(name).lower()[:COMPARED]
    near = [one for one in names if _is_near(typed, one.lower())]
    guess = f"did you mean {min(near, key=lambda one: edits(typed, one.lower()))!r}? " if near else ""
    return f"{guess}{'Known' if guess else 'known'}: {', '.join(names)}"


def _is_near(typed: str, known: str) -> bool:
    """Whether the names begin alike, or one is a slip of the other: at most one letter wrong in three."""
    shorter, longer = sorted(map(len, (typed, known)))
    alike = next((i for i in range(shorter) if typed[i] != known[i]), shorter)
    if alike >= max(LEAST_BEGINNING, 0.75 * shorter):
        return True
    max_distance = max(1, shorter // 3)
    return longer > 1 and longer - shorter <= max_distance and edits(typed, known) <= max_distance


def edits(one: str, other: str) -> int:
    """How many letters differ: put in, left out, changed for another, or swapped with their neighbor.

    Source: Damerau 1964, as the distance of optimal string alignment.
    """
    above: list[int] = []
    row = list(range(len(other) + 1))
    for i, letter in enumerate(one):
        above, last, row = row, above, [i + 1]
        for j, target in enumerate(other):
            minimum = min(above[j + 1] + 1, row[j] + 1, above[j] + (letter != target))
            if i and j and letter == other[j - 1] and target == one[i - 1]:
                minimum = min(minimum, last[j - 1] + 1)
            row.append(minimum)
    return row[-1]
