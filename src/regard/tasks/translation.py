"""How a text is translated: piece by piece through the model, and the text between the pieces."""

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

NOTHING = Hypothesis(tokens=[], score=0.0, finished=True)  # of a text that says nothing


class Candidate(NamedTuple):
    """One way to say a text."""

    text: str
    score: float  # as the search counts it; the mean where the text was split
    tokens: list[list[int]]  # of each piece, without bos and eos
    finished: bool  # whether the model ended every piece by itself; if not, it was cut at the greatest length


class Translation(NamedTuple):
    """A text, what was translated at a time, and what came of it, best first."""

    source: str
    pieces: list[Piece]
    candidates: list[Candidate]
    prefix: str = ""  # what was read before each piece; what the source itself began with is at its end

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
        """Whether the model ended the best by itself; if not, it was cut at the greatest length."""
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
    longest: int = 256,
    usual: int | None = None,
    whole: bool = False,
    max_length: int | Callable[[int], int] | None = None,
    prefix: str = "",
    batch_size: int = 32,
) -> list[Translation]:
    """The translations of texts.

    Args:
        module: the model.
        tokenizer: what it was trained with.
        texts: any texts; one in which nothing can be seen gives an empty one.
        search: how the target is looked for: `Beam`, `Greedy` or `Sample`.
        constraints: rules for the tokens of targets.
        longest: tokens that the model reads well, the end mark included; a longer text is split at sentence ends,
            and the translations of its pieces are joined as the pieces were.
        usual: tokens of a text that is not split at sentence ends, the end mark included; paragraphs are read one by
            one. None for `longest`, and paragraphs are read together.
        whole: whether texts are never split, as those to be summarized.
        max_length: tokens of a target at most, `eos` among them, or that as a function of the tokens of its source;
            None for twice as many as its source has, and 16 more.
        prefix: what the model reads before each piece, such as "translate English to German: ". A language or a task
            that a text begins with is read before each of its pieces as well.
        batch_size: sentences that run together.

    Returns:
        A translation for each text, in order.

    Raises:
        DataError: something else than a list of texts, a text that is not valid Unicode, or one that is too long and
            not to be split.
    """
    check_texts(texts)
    bounds = {"longest": longest, "usual": usual, "whole": whole, "most": module.longest, "prefix": prefix}
    read = [read_source(tokenizer, text, **bounds, number=number) for number, text in enumerate(texts, start=1)]
    sources = _tokens(tokenizer, read)
    how = {"search": search, "constraints": constraints, "max_length": max_length}
    hypotheses = generate(module, [ids for ids in sources if ids], **how, batch_size=batch_size)
    found, rows = iter(hypotheses), iter(sources)
    each = [[next(found) if next(rows) else [NOTHING] for _ in source.pieces] for source in read]
    return [
        Translation(text, source.pieces, candidates(tokenizer, source.pieces, some), source.prefix)
        for text, source, some in zip(texts, read, each, strict=True)
    ]


def _tokens(tokenizer: Tokenizer, read: Sequence[Source]) -> list[list[int]]:
    """The tokens of each piece, with its prefix; none of a piece in which nothing can be seen."""
    pieces = [(source.prefix, piece.text) for source in read for piece in source.pieces]
    alone = encode(tokenizer, [text for _, text in pieces])
    if not any(source.prefix for source in read):
        return alone
    together = encode(tokenizer, [prefix + text.strip() for prefix, text in pieces])
    return [both if ids else [] for both, ids in zip(together, alone, strict=True)]


def candidates(tokenizer: Tokenizer, pieces: Sequence[Piece], found: Sequence[list[Hypothesis]]) -> list[Candidate]:
    """The k-th hypotheses of the pieces joined; a piece that has fewer gives its last one."""
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
    """What stands after each translated piece.

    Ends of lines stay as they were, and other white space is one space. Where there was none, after "。" or between
    words of Thai, a space is put if the translation writes spaces; not within a word that was too long.

    Args:
        pieces: of the source.
        texts: the translations of the pieces.

    Returns:
        As many gaps, the last of which is that after the text.
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
    """Whether one word goes on from a text to the next one, of a script that parts its words."""
    left, right = before[-1:], after[:1]
    return bool(left and right) and not any(
        character.isspace() or UNSPACED.match(character) or unicodedata.category(character)[0] in "PS"
        for character in (left, right)
    )


def _unspaced(character: str) -> bool:
    """Whether no space stands beside it: a character of such a script, or its punctuation, or no character."""
    wide = unicodedata.east_asian_width(character) in ("W", "F") if character else True
    return wide or bool(UNSPACED.match(character))
