"""Translation of texts: split into pieces, decoded by the model, and joined again."""

import unicodedata
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any, NamedTuple

from regard.data.spaces import ODD
from regard.data.tokenizer import UNSPACED, Tokenizer
from regard.decode.constraints import Constraints
from regard.decode.generate import generate
from regard.decode.search import Beam, Hypothesis, Search
from regard.models.seq2seq import Seq2Seq
from regard.tasks.check import check_texts
from regard.tasks.source import Source, encode, read_source
from regard.tasks.split import Piece

NOTHING = Hypothesis(tokens=[], score=0.0, finished=True)  # of a blank text


class Candidate(NamedTuple):
    """One translation of a text."""

    text: str
    score: float  # of the search; the mean over the pieces of a split text
    tokens: list[list[int]]  # of each piece, without special tokens
    finished: bool  # whether every piece ends with the end token; if not, it was cut at the maximum length


class Translation(NamedTuple):
    """A source text, the pieces it was split into, and its translations, best first."""

    source: str
    pieces: list[Piece]
    candidates: list[Candidate]
    prefix: str = ""  # prefix of each piece, including a prefix that the source itself began with

    @property
    def text(self) -> str:
        """The best."""
        return self.candidates[0].text

    @property
    def score(self) -> float:
        """Of the best."""
        return self.candidates[0].score

    @property
    def finished(self) -> bool:
        """Whether the best ends with the end token; if not, it was cut at the maximum length."""
        return self.candidates[0].finished

    def __str__(self) -> str:
        return self.text


def translate(
    module: Seq2Seq,
    tokenizer: Tokenizer,
    texts: Sequence[str],
    *,
    search: Search = Beam(),
    constraints: Constraints = Constraints(),
    max_source_length: int = 256,
    split_length: int | None = None,
    whole: bool = False,
    max_length: int | Callable[[int], int] | None = None,
    prefix: str = "",
    batch_size: int = 32,
) -> list[Translation]:
    """Translate texts.

    Args:
        module: the model.
        tokenizer: of the model.
        texts: any texts; the translation of a blank one is empty.
        search: `Beam`, `Greedy` or `Sample`.
        constraints: token constraints of the targets.
        max_source_length: maximum number of tokens of a source, the end token included; longer texts are split at
            sentence ends, and the translations of the pieces are joined.
        split_length: number of tokens beyond which a text is split at sentence ends, the end token included;
            paragraphs are translated separately. None for `max_source_length`, with paragraphs translated together.
        whole: whether texts are never split.
        max_length: maximum number of tokens of a target, `eos` included, or a function from the source's number of
            tokens to it; None for twice the source's plus 16.
        prefix: prefix of each piece, such as "translate English to German: ". A language or task prefix with which a
            text begins is repeated before each of its pieces.
        batch_size: sentences per batch.

    Returns:
        A translation for each text, in order.

    Raises:
        DataError: texts that are not a list of strings, a text that is not valid Unicode, or one that is too long and
            not to be split.
    """
    check_texts(texts)
    bounds = {
        "max_length": max_source_length,
        "split_length": split_length,
        "whole": whole,
        "model_max_length": module.max_length,
        "prefix": prefix,
    }
    read = [read_source(tokenizer, text, **bounds, number=number) for number, text in enumerate(texts, start=1)]
    sources = _tokens(tokenizer, read)
    options = {"search": search, "constraints": constraints, "max_length": max_length}
    hypotheses = generate(module, [ids for ids in sources if ids], **options, batch_size=batch_size)
    found, rows = iter(hypotheses), iter(sources)
    each = [[next(found) if next(rows) else [NOTHING] for _ in source.pieces] for source in read]
    return [
        Translation(text, source.pieces, candidates(tokenizer, source.pieces, some), source.prefix)
        for text, source, some in zip(texts, read, each, strict=True)
    ]


def _tokens(tokenizer: Tokenizer, read: Sequence[Source]) -> list[list[int]]:
    """Token ids of each piece, with its prefix; empty for a blank piece."""
    pieces = [(source.prefix, piece.text) for source in read for piece in source.pieces]
    alone = encode(tokenizer, [text for _, text in pieces])
    if not any(source.prefix for source in read):
        return alone
    together = encode(tokenizer, [prefix + text.strip() for prefix, text in pieces])
    return [both if ids else [] for both, ids in zip(together, alone, strict=True)]


def candidates(tokenizer: Tokenizer, pieces: Sequence[Piece], found: Sequence[list[Hypothesis]]) -> list[Candidate]:
    """Join the k-th hypotheses of the pieces; a piece with fewer hypotheses contributes its last one."""
    joined = []
    for k in range(max(len(some) for some in found)):
        chosen = [some[min(k, len(some) - 1)] for some in found]
        tokens = [hypothesis.tokens for hypothesis in chosen]
        texts = tokenizer.decode_batch(tokens)
        between = gaps(pieces, texts)
        text = "".join(part for said, gap in zip(texts, between, strict=True) for part in (said, gap))
        score = sum(hypothesis.score for hypothesis in chosen) / len(chosen)
        joined.append(Candidate(text, score, tokens, all(hypothesis.finished for hypothesis in chosen)))
    return joined


def gaps(pieces: Sequence[Piece], texts: Sequence[str]) -> list[str]:
    """The text after each translated piece.

    Line ends are kept, and other white space becomes one space. Where there was none, as after "。" or between words of
    Thai, a space is added if the translation's script uses spaces, except within a word that was split.

    Args:
        pieces: of the source.
        texts: the translations of the pieces.

    Returns:
        One gap per piece; the last is the one after the text.
    """
    between = [_gap(*sides) for sides in zip(pairwise(pieces), pairwise(texts), strict=True)]
    return [*between, pieces[-1].gap]


def _gap(pieces: tuple[Piece, Piece], texts: tuple[str, str]) -> str:
    gap = ODD.sub(_plain, pieces[0].gap)
    if gap:
        return gap if "\n" in gap else " "
    parted = not within_word(pieces[0].text, pieces[1].text)
    return " " if parted and not any(map(_unspaced, (texts[0][-1:], texts[1][:1]))) else ""


def _plain(match: Any) -> str:
    character: str = match[0]
    return character if character in "\r\n" else " " if character.isspace() else ""


def within_word(before: str, after: str) -> bool:
    """Whether two adjacent texts split a word of a script that uses spaces."""
    left, right = before[-1:], after[:1]
    return bool(left and right) and not any(
        character.isspace() or UNSPACED.match(character) or unicodedata.category(character)[0] in "PS"
        for character in (left, right)
    )


def _unspaced(character: str) -> bool:
    """Whether a character takes no space beside it: one of a script without spaces, its punctuation, or none."""
    wide = unicodedata.east_asian_width(character) in ("W", "F") if character else True
    return wide or bool(UNSPACED.match(character))
