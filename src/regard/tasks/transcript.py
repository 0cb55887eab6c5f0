"""Transcripts: texts with times."""

from dataclasses import dataclass, field
from typing import Any, NamedTuple, final

from regard.audio.sound import SoundInfo


class Word(NamedTuple):
    """Word with its start and end time.

    Args:
        text: with the space before it, if there is one.
        start, end: in seconds.
        probability: mean of its tokens'.
    """

    text: str
    start: float
    end: float
    probability: float


class Candidate(NamedTuple):
    """One of the n best texts of beam search, and its score: the mean log-probability of its tokens."""

    text: str
    score: float


@final
@dataclass(frozen=True, kw_only=True)
class Segment:
    """A part of a text, between two times.

    Args:
        start, end: in seconds.
        text: what was said.
        tokens: of the model, those of times included.
        log_prob: mean log-probability of the tokens of its window.
        no_speech: the model's probability that nothing is said in its window; None of a model that has none.
        temperature: that its window's tokens were sampled at; 0 for a search.
        compression_ratio: of its window's text: bytes over compressed bytes; above 2.4 it probably repeats itself.
        words: with their times; None if they were not asked for.
    """

    start: float
    end: float
    text: str
    tokens: tuple[int, ...]
    log_prob: float
    no_speech: float | None
    temperature: float
    compression_ratio: float
    words: tuple[Word, ...] | None = None

    def to_plain(self) -> dict[str, Any]:
        """The fields as JSON's types."""
        return {
            "start": round(self.start, 3),
            "end": round(self.end, 3),
            "text": self.text,
            "log_prob": self.log_prob,
            "no_speech": self.no_speech,
            "temperature": self.temperature,
            "compression_ratio": self.compression_ratio,
            **({} if self.words is None else {"words": [_word_to_plain(word) for word in self.words]}),
        }


@final
@dataclass(frozen=True, kw_only=True)
class Transcript:
    """The text of a sound; `str` of it is the text.

    Args:
        text: the whole text.
        language: code of the language that was spoken, as it was chosen or detected; None if the model has one only.
        language_probability: of that language, if it was detected; None if it was chosen.
        segments: in order.
        info: of the sound: its name, length, rate, channels, clipping and silence.
        candidates: further texts of a beam search with `n_best` above 1, best first; only for a single window.
    """

    text: str
    language: str | None
    language_probability: float | None
    segments: tuple[Segment, ...]
    info: SoundInfo
    candidates: tuple[Candidate, ...] = field(default=())

    def __str__(self) -> str:
        return self.text

    def to_plain(self) -> dict[str, Any]:
        """The fields as JSON's types."""
        return {
            "file": self.info.name,
            "seconds": round(self.info.seconds, 3),
            "language": self.language,
            "language_probability": self.language_probability,
            "text": self.text,
            "segments": [segment.to_plain() for segment in self.segments],
            **({"candidates": [one._asdict() for one in self.candidates]} if self.candidates else {}),
        }


def _word_to_plain(word: Word) -> dict[str, Any]:
    return {
        "word": word.text,
        "start": round(word.start, 3),
        "end": round(word.end, 3),
        "probability": word.probability,
    }
