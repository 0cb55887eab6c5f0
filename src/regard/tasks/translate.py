"""Texts into texts, with a model that reads a source and writes a target."""

from collections.abc import Sequence
from typing import NamedTuple

from regard.data.tokenizer import Tokenizer
from regard.decode.constraints import Constraints
from regard.decode.generate import generate
from regard.decode.search import Beam, Hypothesis, Search
from regard.errors import DataError
from regard.models.seq2seq import Seq2Seq
from regard.tasks.split import Piece, split

NOTHING = Hypothesis(tokens=[], score=0.0, finished=True)  # of a text that says nothing


class Candidate(NamedTuple):
    """One way to say a text."""

    text: str
    score: float  # as the search counts it; the mean where the text was split
    tokens: list[list[int]]  # of each piece, without bos and eos
    finished: bool  # whether the model ended every piece by itself


class Translation(NamedTuple):
    """A text, what was translated at a time, and what came of it, best first."""

    source: str
    pieces: list[Piece]
    candidates: list[Candidate]

    @property
    def text(self) -> str:
        """The best."""
        return self.candidates[0].text

    @property
    def score(self) -> float:
        """Of the best."""
        return self.candidates[0].score

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
    max_length: int | None = None,
    prefix: str = "",
    batch_size: int = 32,
) -> list[Translation]:
    """The translations of texts.

    Args:
        module: the model.
        tokenizer: what it was trained with.
        texts: any texts; a blank one gives an empty one.
        search: how the target is looked for: `Beam`, `Greedy` or `Sample`.
        constraints: rules for the tokens of targets.
        longest: tokens that the model reads well, the end mark included; a longer text is split at sentence ends,
            and the translations of its pieces are joined as the pieces were.
        usual: tokens of a text that is not split at sentence ends, the end mark included; None for `longest`.
        max_length: tokens of a target at most, `eos` among them; None for twice as many as its source has, and 16 more.
        prefix: what the model reads before each piece, such as "translate English to German: ".
        batch_size: sentences that run together.

    Returns:
        A translation for each text, in order.

    Raises:
        DataError: something else than a list of texts, or a text that is not valid Unicode.
    """
    check_texts(texts)
    taken = 1 + (len(tokenizer.encode(prefix)) if prefix else 0)
    most, few = max(1, longest - taken), None if usual is None else max(1, usual - taken)
    pieces = [split(text, most, lambda some: count(tokenizer, some), few) for text in texts]
    said = [piece.text.strip() for some in pieces for piece in some]
    sources = tokenizer.encode_batch([prefix + text for text in said if text])
    how = {"search": search, "constraints": constraints, "max_length": max_length}
    found = iter(generate(module, sources, **how, batch_size=batch_size))
    hypotheses = iter([next(found) if text else [NOTHING] for text in said])
    return [
        Translation(text, some, candidates(tokenizer, some, [next(hypotheses) for _ in some]))
        for text, some in zip(texts, pieces, strict=True)
    ]


def candidates(tokenizer: Tokenizer, pieces: Sequence[Piece], found: Sequence[list[Hypothesis]]) -> list[Candidate]:
    """The k-th hypotheses of the pieces joined; a piece that has fewer gives its last one."""
    joined = []
    for k in range(max(len(some) for some in found)):
        chosen = [some[min(k, len(some) - 1)] for some in found]
        tokens = [hypothesis.tokens for hypothesis in chosen]
        texts = tokenizer.decode_batch(tokens)
        text = "".join(part for said, piece in zip(texts, pieces, strict=True) for part in (said, piece.gap))
        score = sum(hypothesis.score for hypothesis in chosen) / len(chosen)
        joined.append(Candidate(text, score, tokens, all(hypothesis.finished for hypothesis in chosen)))
    return joined


def count(tokenizer: Tokenizer, texts: Sequence[str]) -> list[int]:
    """The numbers of tokens."""
    return [len(ids) for ids in tokenizer.encode_batch(texts)]


def check_texts(texts: Sequence[str]) -> None:
    """Raise DataError unless these are texts, each of which can be written as UTF-8."""
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
