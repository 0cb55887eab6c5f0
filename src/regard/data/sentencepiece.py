"""Texts as pieces of a SentencePiece vocabulary and back, piece for piece as SentencePiece itself does it.

A text is normalized, then cut: into the pieces whose scores sum to the most (unigram), or by merging the two neighbors
whose union is the piece of the highest score, again and again (BPE). Equal sums are decided by rounding, so scores are
added in float32, from left to right, as the source does.

Source: unigram: Kudo 2018, arXiv 1804.10959, section 3.2; BPE: Sennrich et al. 2016, arXiv 1508.07909; the whole: Kudo
and Richardson 2018, arXiv 1808.06226.
"""

import heapq
import re
from array import array
from collections.abc import Sequence
from typing import final

from regard.data.sentencepiece_model import BYTE, CONTROL, NORMAL, UNKNOWN, UNUSED, USER_DEFINED, SentencePieceModel

SPACE = "\u2581"
UNKNOWN_PENALTY = 10.0  # below the lowest score of a piece
USER_DEFINED_SCORE = 0.1  # of each byte but the first: above all others, which are logarithms of probabilities

Found = list[tuple[str, int]]  # pieces as they stand in the normalized text, and their ids


@final
class SentencePiece:
    """A vocabulary at work.

    Args:
        model: the vocabulary.
    """

    def __init__(self, model: SentencePieceModel) -> None:
        self.model = model
        pieces = model.pieces
        self._ids = {piece.text: i for i, piece in enumerate(pieces) if piece.kind in (NORMAL, USER_DEFINED, UNUSED)}
        self._kinds = {piece.text: piece.kind for piece in pieces}
        self._bytes = {int(piece.text[3:5], 16): i for i, piece in enumerate(pieces) if piece.kind == BYTE}
        fixed = sorted((piece.text for piece in pieces if piece.kind == USER_DEFINED), key=len, reverse=True)
        self._fixed = re.compile("|".join(map(re.escape, fixed))) if fixed else None
        scores = [piece.score for piece in pieces if piece.kind == NORMAL]
        self._scores = {
            text: _rounded(len(text.encode()) * USER_DEFINED_SCORE - USER_DEFINED_SCORE)
            if pieces[i].kind == USER_DEFINED
            else pieces[i].score
            for text, i in self._ids.items()
            if pieces[i].kind != UNUSED
        }
        self._unknown_score = _rounded(min(scores, default=0.0) - UNKNOWN_PENALTY)
        # what a piece starts with, to know where no longer one can follow
        self._starts = {text[:end] for text in self._scores for end in range(1, len(text) + 1)}

    def encode(self, text: str) -> list[int]:
        """The ids of a text, without marks."""
        return [i for _, i in self.pieces(text)]

    def pieces(self, text: str) -> Found:
        """The pieces of a text and their ids; what is in no piece stands together."""
        normal = self.normalize(text)
        cut = self._unigram(normal) if self.model.algorithm == "unigram" else self._bpe(normal)
        unknown, found = self.model.unknown, []
        for piece, i in cut:
            if i == unknown and self.model.byte_fallback:
                found += [(self.model.pieces[k].text, k) for k in map(self._bytes.__getitem__, piece.encode())]
            elif i == unknown and found and found[-1][1] == unknown:
                found[-1] = (found[-1][0] + piece, unknown)
            else:
                found.append((piece, i))
        return found

    def decode(self, ids: Sequence[int]) -> str:
        """The text of ids; marks are left out, and bytes that are no UTF-8 become U+FFFD each."""
        return self.decode_pieces([self.model.pieces[i].text for i in ids])

    def decode_pieces(self, pieces: Sequence[str]) -> str:
        """The text of pieces, of which this vocabulary may lack some: these stand for themselves."""
        model, said, pending = self.model, [], bytearray()
        first = True  # nothing is said yet: a space here is the one that was put before the text
        for text in pieces:
            kind = self._kinds.get(text, NORMAL)
            if kind == BYTE:
                pending.append(int(text[3:5], 16))
                continue
            said.append(_utf8(pending))
            pending.clear()
            first = first and not any(said)
            if kind == UNKNOWN:
                said.append(model.unknown_text)
            elif kind != CONTROL:
                if first and (model.space_before or model.single_spaces):
                    stripped = text.removeprefix(SPACE)
                    first = model.single_spaces or stripped == text
                    text = stripped
                said.append(text.replace(SPACE, " "))
        return "".join([*said, _utf8(pending)])

    def normalize(self, text: str) -> str:
        """The text as it is cut: characters replaced, spaces as the vocabulary has them."""
        if not text:
            return ""
        model = self.model
        parts, at = [], 0
        longest, fixed = model.charsmap.longest, self._fixed
        while at < len(text):
            if fixed is not None and (match := fixed.match(text, at)):
                part, length = match[0], match.end() - at
            else:
                part, length = longest(text, at)
            parts.append(part)
            at += length
        if model.single_spaces:
            parts = _single_spaces(parts)
            if not parts:
                return ""
        normal = "".join(parts)
        if model.mark_spaces:
            normal = normal.replace(" ", SPACE)
        space = SPACE if model.mark_spaces else " "
        if model.space_before and not model.space_behind:
            normal = space + normal
        if model.single_spaces:
            normal = normal.rstrip(space)
        return normal + space if model.space_before and model.space_behind else normal

    def _unigram(self, text: str) -> Found:
        """The pieces of the highest sum of scores (Viterbi)."""
        scores, starts, unknown = self._scores, self._starts, self._unknown_score
        size = len(text)
        best = array("f", bytes(4 * (size + 1)))  # the highest sum up to each place, rounded as the source rounds it
        rounded = array("f", [0.0])
        before = [-1] * (size + 1)  # where the last piece of that sum starts
        for start in range(size):
            here, one = best[start], False
            end = start + 1
            while end <= size and (piece := text[start:end]) in starts:
                score = scores.get(piece)
                if score is not None:
                    rounded[0] = here + score
                    if before[end] < 0 or rounded[0] > best[end]:
                        best[end], before[end] = rounded[0], start
                    one = one or end == start + 1
                end += 1
            if not one:
                end = start + 1
                rounded[0] = here + unknown
                if before[end] < 0 or rounded[0] > best[end]:
                    best[end], before[end] = rounded[0], start
        found, end = [], size
        while end > 0:
            piece = text[before[end] : end]
            found.append((piece, self._ids.get(piece, self.model.unknown) if piece in scores else self.model.unknown))
            end = before[end]
        return found[::-1]

    def _bpe(self, text: str) -> Found:
        """The pieces that are left when no two neighbors make one."""
        ids, pieces = self._ids, self.model.pieces
        fixed = list(self._fixed.finditer(text)) if self._fixed is not None else []
        symbols: list[str] = []
        frozen: set[int] = set()
        at = 0
        for match in fixed:
            symbols += text[at : match.start()]
            frozen.add(len(symbols))
            symbols.append(match[0])
            at = match.end()
        symbols += text[at:]
        left, right = list(range(-1, len(symbols) - 1)), [*range(1, len(symbols)), -1]
        halves: dict[str, tuple[str, str]] = {}  # of pieces that may only be steps to others
        agenda: list[tuple[float, int, int, int]] = []

        def consider(a: int, b: int) -> None:
            if a < 0 or b < 0 or a in frozen or b in frozen:
                return
            union = symbols[a] + symbols[b]
            i = ids.get(union)
            if i is None:
                return
            heapq.heappush(agenda, (-pieces[i].score, a, b, len(union)))
            if pieces[i].kind == UNUSED:
                halves[union] = symbols[a], symbols[b]

        for a, b in enumerate(right):
            consider(a, b)
        while agenda:
            _, a, b, length = heapq.heappop(agenda)
            if not symbols[a] or not symbols[b] or len(symbols[a]) + len(symbols[b]) != length:
                continue  # one of them has become part of another since
            symbols[a], symbols[b] = symbols[a] + symbols[b], ""
            right[a] = right[b]
            if right[b] >= 0:
                left[right[b]] = a
            consider(left[a], a)
            consider(a, right[a])

        found: Found = []
        left_over = [symbol for symbol in reversed(symbols) if symbol]
        while left_over:
            symbol = left_over.pop()
            i = ids.get(symbol)
            if i is not None and pieces[i].kind == UNUSED and symbol in halves:
                left_over += reversed(halves[symbol])
            else:
                found.append((symbol, self.model.unknown if i is None else i))
        return found


def _rounded(x: float) -> float:
    """To float32."""
    return array("f", [x])[0]


def _single_spaces(parts: list[str]) -> list[str]:
    """Without spaces that follow a space or stand at the start."""
    kept, after_space = [], True
    first = next((i for i, part in enumerate(parts) if part != " "), len(parts))
    for part in parts[first:]:
        part = part.lstrip(" ") if after_space else part
        if part:
            kept.append(part)
            after_space = part.endswith(" ")
    return kept if kept or first == len(parts) else [""]


def _utf8(data: bytearray) -> str:
    """The text of bytes, with one U+FFFD for each byte that is part of no character."""
    text = bytes(data).decode(errors="surrogateescape")
    return re.sub("[\udc80-\udcff]", "\ufffd", text)
