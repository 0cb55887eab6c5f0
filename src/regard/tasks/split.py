"""Text that is too long for a model, in pieces that are not.

A piece holds as many sentences as fit, or as are usual. A sentence that alone is too long is cut after a comma,
semicolon or colon, else between words, else anywhere. What stood between two pieces is kept beside them, so that the
pieces can be joined again as they were.
"""

import re
from collections.abc import Callable, Sequence
from typing import NamedTuple

# Where text may be cut, best first. A match is what stands between two pieces: white space, or nothing after the
# signs of scripts that write none.
CUTS = (
    re.compile(r"""\n\s*|(?<=[.!?…])["'”’»)\]]*(\s+)|(?<=[。！？])"""),  # noqa: RUF001
    re.compile(r"(?<=[,;:])\s+|(?<=[，、；：])"),  # noqa: RUF001
    re.compile(r"\s+"),
)
TOKENS_PER_CHARACTER = 4  # at most: the bytes of a character in UTF-8

Count = Callable[[Sequence[str]], list[int]]


class Piece(NamedTuple):
    """A part of a text, and what stands between it and the next one."""

    text: str
    gap: str = ""


def split(text: str, longest: int, count: Count, usual: int | None = None) -> list[Piece]:
    """The pieces of a text, each short enough.

    Args:
        text: any text.
        longest: tokens that a piece may have, >= 1.
        count: the numbers of tokens of texts.
        usual: tokens that a piece of several sentences may have, >= 1; None for `longest`.

    Returns:
        At least one piece; texts and gaps joined are the text.

    >>> split("One two. Three four. Five.", 4, lambda texts: [len(text.split()) for text in texts])
    [Piece(text='One two. Three four.', gap=' '), Piece(text='Five.', gap='')]
    """
    return _split(Piece(text), min(usual or longest, longest), longest, count, CUTS)


def _split(piece: Piece, most: int, longest: int, count: Count, cuts: Sequence[re.Pattern[str]]) -> list[Piece]:
    """`most` tokens for what the first of the cuts leaves together, `longest` for what the others do."""
    if count([piece.text])[0] <= most:
        return [piece]
    if not cuts:
        return _anywhere(piece, max(1, longest // TOKENS_PER_CHARACTER))
    parts = _cut(piece, cuts[0])
    packed = _pack(parts, count([part.text for part in parts]), most)
    return [short for part in packed for short in _split(part, longest, longest, count, cuts[1:])]


def _cut(piece: Piece, cut: re.Pattern[str]) -> list[Piece]:
    parts, start = [], 0
    for match in cut.finditer(piece.text):
        # Closing quotes and brackets stay with their sentence: the gap is the white space after them.
        end = match.start(1) if match.re.groups and match[1] is not None else match.start()
        if start < end and match.end() < len(piece.text):
            parts.append(Piece(piece.text[start:end], piece.text[end : match.end()]))
            start = match.end()
    return [*parts, Piece(piece.text[start:], piece.gap)]


def _pack(parts: Sequence[Piece], counts: Sequence[int], longest: int) -> list[Piece]:
    """Neighbors together, as many as fit."""
    packed: list[Piece] = []
    group: list[Piece] = []
    tokens = 0
    for part, more in zip(parts, counts, strict=True):
        if group and tokens + more > longest:
            packed.append(_join(group))
            group, tokens = [], 0
        group.append(part)
        tokens += more
    return [*packed, _join(group)]


def _join(group: Sequence[Piece]) -> Piece:
    texts = [text for part in group[:-1] for text in part]
    return Piece("".join([*texts, group[-1].text]), group[-1].gap)


def _anywhere(piece: Piece, size: int) -> list[Piece]:
    texts = [piece.text[i : i + size] for i in range(0, len(piece.text), size)]
    return [*(Piece(text) for text in texts[:-1]), Piece(texts[-1], piece.gap)]
