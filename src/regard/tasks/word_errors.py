"""Word and character error rates of transcripts, with bootstrap intervals."""

import unicodedata
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from regard.tasks.bootstrap import bootstrap_interval
from regard.tasks.score_table import ScoreTable, as_text

RESAMPLES = 1000
SECONDS_OF_BUCKETS = (2, 5, 10, 30)  # upper bounds; the last bucket has none


class ErrorRate(NamedTuple):
    """An error rate in percent, and the bounds between which 95% of the rates of resampled utterances lie."""

    percent: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.percent:.2f} ({self.low:.2f} to {self.high:.2f})"


class Scores(NamedTuple):
    """Error rates in percent; lower is better."""

    wer: float
    cer: float


class DurationBucket(NamedTuple):
    """Error rates of the utterances that last between `shortest` and `longest` seconds."""

    shortest: int
    longest: int | None
    utterances: int
    wer: float
    cer: float


class TranscriptEvaluation(NamedTuple):
    """Result of `Transcriber.evaluate`."""

    wer: ErrorRate  # of normalized words
    cer: ErrorRate  # of normalized characters
    exact_wer: ErrorRate  # of words as they are written
    buckets: list[DurationBucket]
    utterances: int
    empty: int  # utterances in which nothing was found
    audio_seconds: float
    seconds: float
    texts: list[str]

    @property
    def scores(self) -> Scores:
        """The error rates without their intervals."""
        return Scores(self.wer.percent, self.cer.percent)

    def to_plain(self) -> dict[str, Any]:
        """The numbers as JSON types, without the texts."""
        rates = {name: getattr(self, name)._asdict() for name in ("wer", "cer", "exact_wer")}
        plain = {**self._asdict(), **rates, "buckets": [one._asdict() for one in self.buckets]}
        del plain["texts"]
        return {**plain, "audio_seconds_per_second": self.audio_seconds / self.seconds}

    def parts(self) -> list[ScoreTable | str]:
        """The error rates by duration and overall as a table, and lines about how they were computed."""
        rows = []
        for one in self.buckets:
            seconds = f"{one.shortest}+" if one.longest is None else f"{one.shortest}-{one.longest}"
            rows.append((seconds, f"{one.utterances:,}", f"{one.wer:.2f}", f"{one.cer:.2f}"))
        rows.append(("all", f"{self.utterances:,}", f"{self.wer.percent:.2f}", f"{self.cer.percent:.2f}"))
        speed = self.audio_seconds / self.seconds
        return [
            ScoreTable(("seconds", "utterances", "WER", "CER"), rows, widths=(10, 12, 8, 8)),
            "",
            f"WER {self.wer}, CER {self.cer}; in parentheses 95% of {RESAMPLES:,} bootstrap resamples of utterances",
            f"with case and punctuation: WER {self.exact_wer}",
            f"{self.empty:,} utterances without text; {self.audio_seconds:,.0f} s of sound, {speed:.1f} s a second",
        ]

    def table(self) -> str:
        """The same as lines of text."""
        return as_text(self.parts())


def normalized(text: str) -> str:
    """Text for comparison: compatible characters (NFKC) in lower case, without punctuation, words one space apart."""
    folded = unicodedata.normalize("NFKC", text).casefold()
    kept = (" " if unicodedata.category(character)[0] in "PSZC" else character for character in folded)
    return " ".join("".join(kept).replace("\N{COMBINING DOT ABOVE}", "").split())


def edits(hypothesis: Sequence[str], reference: Sequence[str]) -> int:
    """Levenshtein distance: the fewest insertions, deletions and substitutions that make one of the other.

    >>> edits("a b d".split(), "a b c d".split())
    1
    """
    row = np.arange(len(hypothesis) + 1)
    codes = {item: i for i, item in enumerate({*hypothesis, *reference})}
    items = np.array([codes[item] for item in hypothesis], np.int64)
    for number, item in enumerate(reference, start=1):
        changed = np.minimum(row[1:] + 1, row[:-1] + (items != codes[item]))
        row = np.concatenate(([number], changed))
        # an insertion costs 1 more than the cell before: a running minimum of the costs without the steps
        steps = np.arange(len(row))
        row = np.minimum.accumulate(row - steps) + steps
    return int(row[-1])


def error_rate(hypotheses: Sequence[Sequence[str]], references: Sequence[Sequence[str]]) -> ErrorRate:
    """Edits per item of the references, in percent; the interval resamples the utterances.

    Args:
        hypotheses: items, words or characters, of each utterance.
        references: as many.

    Returns:
        The rate; 0 for no items in references and hypotheses.

    Source: the interval: Bisani and Ney 2004, "Bootstrap estimates for confidence intervals in ASR performance
    evaluation", section 3.
    """
    errors = np.array([edits(*both) for both in zip(hypotheses, references, strict=True)], float)
    sizes = np.array([len(reference) for reference in references], float)

    def rates(rows: NDArray[np.int64]) -> NDArray[np.float64]:
        percent: NDArray[np.float64] = 100 * errors[rows].sum(-1) / np.maximum(1, sizes[rows].sum(-1))
        return percent

    overall = float(rates(np.arange(len(errors))))
    return ErrorRate(overall, *bootstrap_interval(len(errors), rates, resamples=RESAMPLES))


def evaluate_transcripts(
    texts: Sequence[str], references: Sequence[str], durations: Sequence[float], seconds: float
) -> TranscriptEvaluation:
    """Error rates of transcripts, overall and by duration.

    Args:
        texts: hypotheses.
        references: as many.
        durations: of the utterances, in seconds.
        seconds: that the transcription took.

    Returns:
        The evaluation.
    """
    ours, theirs = [normalized(text) for text in texts], [normalized(text) for text in references]
    words, true_words = [text.split() for text in ours], [text.split() for text in theirs]
    buckets, shortest = [], 0
    for longest in (*SECONDS_OF_BUCKETS, None):
        rows = [i for i, x in enumerate(durations) if x >= shortest and (longest is None or x < longest)]
        if rows:
            wer = error_rate([words[i] for i in rows], [true_words[i] for i in rows]).percent
            cer = error_rate([list(ours[i]) for i in rows], [list(theirs[i]) for i in rows]).percent
            buckets.append(DurationBucket(shortest, longest, len(rows), wer, cer))
        shortest = longest or 0
    return TranscriptEvaluation(
        wer=error_rate(words, true_words),
        cer=error_rate([list(text) for text in ours], [list(text) for text in theirs]),
        exact_wer=error_rate([text.split() for text in texts], [text.split() for text in references]),
        buckets=buckets,
        utterances=len(texts),
        empty=sum(not text for text in ours),
        audio_seconds=sum(durations),
        seconds=seconds,
        texts=list(texts),
    )
