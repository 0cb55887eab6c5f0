"""State of the transcription of one sound, window by window."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import final

from regard.audio.activity import EnergyGate
from regard.audio.features import SoundFeatures
from regard.audio.mel import FRAME_RATE
from regard.models.whisper import STRIDE
from regard.tasks.speech_decoding import Decoding, Language
from regard.tasks.speech_segments import split_window
from regard.tasks.speech_settings import SHORT_SECONDS, SpeechSettings
from regard.tasks.speech_tokens import SpeechTokens
from regard.tasks.transcript import Candidate, Segment, Transcript, Word
from regard.tasks.word_times import at_silence

CARRIED_BELOW = 0.5  # temperature above which a text is not carried to the next window, as published


@final
class SoundProgress:
    """State of the transcription of one sound: its segments so far, and the start of the next window.

    Args:
        number: index of the sound in the call.
        features: spectrogram of the sound.
        settings: options of the transcription.
        special: the model's special tokens.
        source_length: source positions of the model's window.
        prompt: tokens of `settings.prompt`.
        text_of: function that decodes tokens.
    """

    def __init__(
        self,
        number: int,
        features: SoundFeatures,
        settings: SpeechSettings,
        special: SpeechTokens,
        source_length: int,
        prompt: Sequence[int],
        text_of: Callable[[Sequence[int]], str],
    ) -> None:
        self.number, self.features, self.settings, self.special = number, features, settings, special
        self.text_of = text_of
        self.language = Language(settings.language if special.languages else None, None)
        self.seek, self.full = 0, STRIDE * source_length
        self.previous = list(prompt)
        self.segments: list[Segment] = []
        self.candidates: tuple[Candidate, ...] = ()
        short = SHORT_SECONDS * FRAME_RATE
        self.short = short if settings.window == "auto" and features.frames <= short < self.full else None
        self.times = features.frames > self.full if settings.timestamps is None else settings.timestamps
        self.times |= features.frames > self.full
        self._spans = None if settings.gate is None else settings.gate.spans(features.energies)
        self._skip_silence()

    @property
    def window(self) -> int:
        """Frames of the next window as the model reads it."""
        return self.short or self.full

    @property
    def frames(self) -> int:
        """Frames of sound in the next window."""
        return min(self.window, self.features.frames - self.seek)

    @property
    def done(self) -> bool:
        """Whether the whole sound is transcribed."""
        return self.seek >= max(self.features.frames, 1)

    def text_tokens(self, decoding: Decoding) -> list[int]:
        """A window's tokens without times."""
        return [token for token in decoding.tokens if token < self.special.first_time]

    def take(self, decoding: Decoding, words: Sequence[tuple[Word, int]] | None) -> list[Segment]:
        """Append the segments of a window, and move to the next window.

        Args:
            decoding: decoded tokens of the window.
            words: words of the window, each with its number of tokens; None if word times were not requested.

        Returns:
            The new segments.
        """
        if self.settings.fallback.is_silent(decoding):
            self._go_on(self.frames)
            return []
        spans, frames = split_window(decoding.tokens, self.special, self.frames, times=self.times)
        waiting, new = list(words or ()), []
        for span in spans:
            text = self.text_of(span.tokens)
            own = _take_words(waiting, sum(token < self.special.first_time for token in span.tokens))
            if span.start == span.end or not text.strip():
                continue
            segment = Segment(
                start=(self.seek + span.start) / FRAME_RATE,
                end=min((self.seek + span.end) / FRAME_RATE, self.features.info.seconds),
                text=text,
                tokens=tuple(span.tokens),
                log_prob=decoding.log_prob,
                no_speech=decoding.no_speech,
                temperature=decoding.temperature,
                compression_ratio=decoding.compression_ratio,
                words=None if words is None else tuple(own),
            )
            new.append(segment)
        self.segments += new
        self.candidates = decoding.candidates if not self.seek else ()
        if self.settings.carry:
            kept = decoding.temperature <= CARRIED_BELOW
            self.previous = [*self.previous, *(t for one in new for t in one.tokens)] if kept else []
        else:
            self.previous = []
        self._go_on(frames)
        return new

    def finish(self) -> Transcript:
        """Transcript of the whole sound."""
        segments = self.segments
        if self.settings.words:
            loud = (self.settings.gate or EnergyGate()).loud(self.features.energies)
            words = at_silence([word for one in segments for word in one.words or ()], loud)
            segments = [_with_words(one, [words.pop(0) for _ in one.words or ()]) for one in segments]
        return Transcript(
            text="".join(one.text for one in segments).strip(),
            language=self.language.code,
            language_probability=self.language.probability,
            segments=tuple(segments),
            info=self.features.info,
            candidates=self.candidates if self.features.frames <= self.full else (),
        )

    def _go_on(self, frames: int) -> None:
        self.seek += max(frames, 1)
        self._skip_silence()

    def _skip_silence(self) -> None:
        """Skip to the next span of sound, if the gate finds none at the current position."""
        if self._spans is None or self.done:
            return
        later = [(start, end) for start, end in self._spans if end > self.seek]
        self.seek = max(self.seek, later[0][0]) if later else max(self.features.frames, 1)


def _take_words(waiting: list[tuple[Word, int]], tokens: int) -> list[Word]:
    """Remove and return the words of the next tokens; a word that extends beyond them is included."""
    words = []
    while waiting and tokens > 0:
        word, count = waiting.pop(0)
        words.append(word)
        tokens -= count
    return words


def _with_words(segment: Segment, words: list[Word]) -> Segment:
    """Segment with these words, starting with the first and ending with the last."""
    times = {"start": words[0].start, "end": max(words[-1].end, words[0].start)} if words else {}
    return replace(segment, words=tuple(words), **times)
