"""Table of scores, which is shown as text or drawn on a terminal."""

from collections.abc import Iterable, Sequence
from typing import NamedTuple


class ScoreTable(NamedTuple):
    """Rows of a name and numbers, as texts.

    >>> print(ScoreTable(("", "BLEU"), [("all", "31.2")], widths=(8, 6)).text())
              BLEU
    all       31.2
    """

    header: tuple[str, ...]
    rows: list[tuple[str, ...]]
    widths: tuple[int, ...]  # of the columns as text, in characters; the first column is aligned at the left

    def text(self) -> str:
        """The table as lines of text; names that are too long for their column are cut."""
        return "\n".join(self._line(row) for row in (self.header, *self.rows))

    def _line(self, row: Sequence[str]) -> str:
        first, *others = (cell[: width - 1] for cell, width in zip(row, self.widths, strict=True))
        return f"{first:<{self.widths[0]}}" + "".join(
            f"{cell:>{width}}" for cell, width in zip(others, self.widths[1:], strict=True)
        )


def as_text(parts: Iterable[ScoreTable | str]) -> str:
    """Tables and lines as one text."""
    return "\n".join(part.text() if isinstance(part, ScoreTable) else part for part in parts)
