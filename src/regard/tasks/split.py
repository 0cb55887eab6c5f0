"""Splitting of long texts into pieces that a model can read.

A piece has as many sentences as fit. A sentence that is too long by itself is cut between clauses, else after a comma,
semicolon or colon, else between words, else anywhere. The text between two pieces is stored with them, so that the
pieces can be joined again.
"""

import itertools
import re
import unicodedata
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import NamedTuple

from regard.data.spaces import DROPPED
from regard.tasks.sentences import Strength, breaks, spaces

# A match is the text between two pieces: white space, or nothing after punctuation of scripts without spaces.
COMMA = re.compile(r"(?<=[,;:،؛፣፤፥])\s+|(?<=[，、；：၊])")  # noqa: RUF001
SPACE = re.compile(r"\s+")
TOKENS_PER_CHARACTER = 4  # maximum: the bytes of a character in UTF-8
LONGEST_CLUSTER = 16  # characters, with accents and joiners, that are not separated

Count = Callable[[Sequence[str]], list[int]]
Spans = Iterable[tuple[int, int]]


class Piece(NamedTuple):
    """Part of a text, and the text between it and the next part."""

    text: str
    gap: str = ""


def split(text: str, max_tokens: int, count: Count, split_length: int | None = None) -> list[Piece]:
    """Split a text into pieces of limited length.

    Args:
        text: any text.
        max_tokens: maximum tokens of a piece, >= 1.
        count: function that counts the tokens of texts.
        split_length: maximum tokens of a piece of several sentences, >= 1; each paragraph is then a piece of its own.
            None: a text is split only if it is longer than `max_tokens`.

    Returns:
        At least one piece; the texts and gaps together are the text.

    >>> split("One two. Three four. Five.", 4, lambda texts: [len(text.split()) for text in texts])
    [Piece(text='One two. Three four.', gap=' '), Piece(text='Five.', gap='')]
    """
    seen = DROPPED.sub("", text)
    whole = Piece(seen)
    parts = [whole] if split_length is None else list(_cut(whole, _places(seen, Strength.PARAGRAPH)))
    first_max_tokens = min(split_length or max_tokens, max_tokens)
    pieces = [short for part in parts for short in _split(part, first_max_tokens, max_tokens, count, LEVELS)]
    return pieces if seen == text else _with_unseen(pieces, text)


def _places(text: str, weakest: Strength) -> Spans:
    return ((place.start, place.end) for place in breaks(text) if place.strength >= weakest)


# Where a text may be cut, best first.
LEVELS: Sequence[Callable[[str], Spans]] = (
    lambda text: _places(text, Strength.SENTENCE),
    lambda text: _places(text, Strength.CLAUSE),
    lambda text: (match.span() for match in COMMA.finditer(text)),
    spaces,
    lambda text: (match.span() for match in SPACE.finditer(text)),
)


def _split(
    piece: Piece, first_max_tokens: int, max_tokens: int, count: Count, levels: Sequence[Callable[[str], Spans]]
) -> list[Piece]:
    """Split by levels: at most `first_max_tokens` in pieces of the first level, `max_tokens` in those of the others."""
    if count([piece.text])[0] <= first_max_tokens:
        return [piece]
    if not levels:
        return list(_anywhere(piece, max(1, max_tokens // TOKENS_PER_CHARACTER)))
    parts = list(_cut(piece, levels[0](piece.text)))
    packed = _pack(parts, count([part.text for part in parts]), first_max_tokens)
    return [short for part in packed for short in _split(part, max_tokens, max_tokens, count, levels[1:])]


def _cut(piece: Piece, spans: Spans) -> Iterator[Piece]:
    start = 0
    for end, after in spans:
        if start < end and after < len(piece.text):
            yield Piece(piece.text[start:end], piece.text[end:after])
            start = after
    yield Piece(piece.text[start:], piece.gap)


def _pack(parts: Sequence[Piece], counts: Sequence[int], max_tokens: int) -> list[Piece]:
    """Join neighboring parts, as many as fit."""
    packed: list[Piece] = []
    group: list[Piece] = []
    tokens = 0
    for part, more in zip(parts, counts, strict=True):
        if group and tokens + more > max_tokens:
            packed.append(_join(group))
            group, tokens = [], 0
        group.append(part)
        tokens += more
    return [*packed, _join(group)]


def _join(group: Sequence[Piece]) -> Piece:
    texts = [text for part in group[:-1] for text in part]
    return Piece("".join([*texts, group[-1].text]), group[-1].gap)


def _anywhere(piece: Piece, size: int) -> Iterator[Piece]:
    """Pieces of `size` characters, or fewer to keep a character with its accents."""
    start, text = 0, piece.text
    while start + size < len(text):
        end = start + size
        lowest = max(start + 1, end - LONGEST_CLUSTER)
        while end > lowest and _is_combining(text[end]):
            end -= 1
        end = start + size if _is_combining(text[end]) else end
        yield Piece(text[start:end])
        start = end
    yield Piece(text[start:], piece.gap)


def _is_combining(character: str) -> bool:
    """Whether a character combines with the one before it."""
    return unicodedata.category(character) in ("Mn", "Mc", "Me", "Cf")


def _with_unseen(pieces: Iterable[Piece], text: str) -> list[Piece]:
    """Pieces of the original text, from the pieces of the text without its invisible characters."""
    dropped = {i for match in DROPPED.finditer(text) for i in range(*match.span())}
    seen = [i for i in range(len(text)) if i not in dropped]
    ends = [0, *itertools.accumulate(len(part) for piece in pieces for part in piece)]
    places = [seen[end] if end < len(seen) else len(text) for end in ends]
    places[0] = 0
    parts = [text[start:end] for start, end in itertools.pairwise(places)]
    return [Piece(*pair) for pair in zip(parts[::2], parts[1::2], strict=True)]
