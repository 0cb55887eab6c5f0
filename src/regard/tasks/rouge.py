"""ROUGE scores of summaries, and of two extractive baselines."""

from collections.abc import Sequence
from typing import Any, NamedTuple

from regard.data.word_tokenizer import split_words
from regard.errors import UnsupportedError
from regard.tasks.score_table import ScoreTable, as_text
from regard.tasks.sentences import Strength, breaks

KINDS = ("rouge1", "rouge2", "rougeL")


class Rouge(NamedTuple):
    """F-measures from 0 to 100, means over the summaries, words stemmed.

    Source: Lin 2004, "ROUGE: A Package for Automatic Evaluation of Summaries", sections 2 and 3; computed by
    rouge-score.
    """

    rouge1: float
    rouge2: float
    rougeL: float


class SummaryEvaluation(NamedTuple):
    """Evaluation of summaries."""

    scores: Rouge
    first_sentence: Rouge  # of the first sentence of each document
    first_words: Rouge  # of its first words, as many as the references have on average
    count: int  # words of the latter
    copied: float | None  # share of references' out-of-vocabulary words in the summary; None without
    documents: int
    cut: int  # documents that were truncated
    unfinished: int  # summaries that were cut at the maximum length
    seconds: float

    def to_plain(self) -> dict[str, Any]:
        """The evaluation as JSON types."""
        scores = {name: getattr(self, name)._asdict() for name in ("scores", "first_sentence", "first_words")}
        return {**self._asdict(), **scores, "documents_per_second": self.documents / self.seconds}

    def parts(self) -> list[ScoreTable | str]:
        """The scores beside those of the baselines as a table, and lines about the documents."""
        scores_by_name = {
            "this model": self.scores,
            "first sentence": self.first_sentence,
            f"first {self.count} words": self.first_words,
        }
        rows = [(name, *(f"{x:.1f}" for x in scores)) for name, scores in scores_by_name.items()]
        copied = "" if self.copied is None else f"{self.copied:.1%} of the references' words outside the vocabulary"
        return [
            ScoreTable(("", "ROUGE-1", "ROUGE-2", "ROUGE-L"), rows, widths=(20, 9, 9, 9)),
            *(["", f"{copied} appear in the summaries"] if copied else []),
            "",
            f"{self.documents:,} documents, {self.documents / self.seconds:,.1f} documents/s",
            f"{self.cut:,} documents were truncated; {self.unfinished:,} summaries were cut off at the maximum length",
        ]

    def table(self) -> str:
        """The scores beside those of the baselines, as lines of text."""
        return as_text(self.parts())


def rouge(texts: Sequence[str], references: Sequence[str]) -> Rouge:
    """ROUGE-1, 2 and L of texts, each against one reference.

    Raises:
        UnsupportedError: rouge-score is not installed.
    """
    try:
        from rouge_score.rouge_scorer import RougeScorer
    except ImportError as error:
        raise UnsupportedError("ROUGE needs its package: pip install rouge-score") from error
    scorer = RougeScorer(list(KINDS), use_stemmer=True)
    sums = dict.fromkeys(KINDS, 0.0)
    for text, reference in zip(texts, references, strict=True):
        for kind, measure in scorer.score(reference, text).items():
            sums[kind] += measure.fmeasure
    return Rouge(**{kind: 100 * total / max(1, len(texts)) for kind, total in sums.items()})


def first_sentence(document: str) -> str:
    """The first sentence of a document."""
    ends = (place.start for place in breaks(document) if place.strength >= Strength.SENTENCE)
    return document[: next(ends, len(document))]


def first_words(document: str, count: int) -> str:
    """The first `count` words of a document."""
    return " ".join(document.split()[:count])


def mean_words(references: Sequence[str]) -> int:
    """Mean number of words of the references, at least 1."""
    return max(1, round(sum(len(reference.split()) for reference in references) / max(1, len(references))))


def copied_share(texts: Sequence[str], references: Sequence[str], known: set[str]) -> float | None:
    """Share of the references' out-of-vocabulary words that occur in the text; None if there are none."""
    total_words = hits = 0
    for text, reference in zip(texts, references, strict=True):
        others = {word for word in split_words(reference) if word not in known}
        total_words += len(others)
        hits += len(others & set(split_words(text)))
    return hits / total_words if total_words else None
