"""Recognizer: a speech recognizer that was trained from nothing, as `regard.load` returns it."""

import itertools
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any, ClassVar, Literal, NamedTuple, final

import torch
from torch import Tensor

from regard.attention.check import check_integer
from regard.audio.activity import EnergyGate
from regard.audio.decoding import RawFormat, SoundSource
from regard.audio.features import SoundFeatures
from regard.audio.mel import FRAME_RATE
from regard.audio.sound import SoundInfo
from regard.audio.spectrogram import SpectrogramProcessor
from regard.decode.beam import beam_search
from regard.decode.constraints import Constraints, ConstraintState
from regard.decode.search import Beam, Greedy, Hypothesis
from regard.decode.stepwise import choose_greedy, decode_stepwise
from regard.errors import ConfigError, DataError
from regard.layers.evaluation import in_evaluation
from regard.lens.sound_maps import SoundMaps
from regard.models.listener import Listener
from regard.models.registry import name_of
from regard.models.speech_transformer import SpeechTransformer
from regard.tasks.speech_decoding import Fallback, compression_ratio
from regard.tasks.speech_runner import SpeechRunner
from regard.tasks.speech_settings import SpeechSettings
from regard.tasks.speech_view import look_with_recognizer
from regard.tasks.transcript import Candidate, Segment, Transcript

BATCH = 16  # stretches of sound that run together
MAX_SECONDS = 60  # of a stretch
SPARE = 1.25  # how many more tokens a second a text may have than any text of the training data
# Settings that Whisper's models have: their special tokens make them.
OF_WHISPER = ("language", "to", "words", "prompt", "hotwords", "carry")
OnSegment = Callable[[int, Segment], None]


class Stretch(NamedTuple):
    """Frames of a sound that are recognized at once."""

    sound: int  # its number among those that run together
    start: int
    end: int


class Recognized(NamedTuple):
    """The text of a stretch of sound, and the n best texts of beam search."""

    segment: Segment
    candidates: tuple[Candidate, ...]


@final
class Recognizer(SpeechRunner):
    """A recognizer that was trained from nothing, with its tokenizer and processor.

    It has one language and writes no times: a sound is one segment, or with a gate each stretch of sound is one.

    Args:
        module: the torch module; `module(spectrograms, lengths, targets)` gives named results.
        tokenizer: of the texts.
        config: fields of config.json, training settings under "training".
        processor: how sound becomes model inputs; None for the model's number of bands, normalized by utterance.
    """

    job: ClassVar[str] = "recognize"
    languages: ClassVar[tuple[str, ...]] = ()
    default_language: ClassVar[str | None] = None
    default_window: ClassVar[Literal["full", "auto"]] = "full"
    writes_times: ClassVar[bool] = False
    parse_processor = SpectrogramProcessor.from_plain

    def __init__(
        self,
        module: Listener | SpeechTransformer,
        tokenizer: Any,
        config: Mapping[str, Any] | None = None,
        processor: SpectrogramProcessor | None = None,
    ) -> None:
        super().__init__(module, tokenizer, config)
        self.processor = SpectrogramProcessor(num_mels=module.config.num_mels) if processor is None else processor

    def transcribe(
        self,
        sounds: Sequence[SoundSource],
        *,
        search: Greedy | Beam = Greedy(),
        gate: EnergyGate | None = None,
        raw: RawFormat | None = None,
        batch_size: int | None = None,
        **settings: Any,
    ) -> list[Transcript]:
        """The texts of sounds; `str` of one is its text.

        Args:
            sounds: names of files, bytes or binary files, or (samples, rate) with samples (N,) or (N, channels).
            search: `Greedy()` or `Beam()`.
            gate: splits sounds at pauses, and leaves out stretches without sound; None to read each sound as a whole.
            raw: format of raw samples; None for files whose header tells it.
            batch_size: stretches of sound that run together; None for 16.
            settings: others of `SpeechSettings`, such as language; they must be the default ones.

        Returns:
            A `Transcript` for each sound, in order.

        Raises:
            DataError: a sound that is missing, damaged, no sound, or longer than 60 s without a pause.
            ConfigError: a setting that is unknown, out of range, or beyond the model.
        """
        if isinstance(sounds, str | Path | bytes | tuple) or hasattr(sounds, "read"):
            raise DataError("sounds must be a list; put one sound into a list of its own")
        how = SpeechSettings(search=search, gate=gate, **settings)
        transcripts = []
        for result in self.each(sounds, how, raw=raw, batch_size=batch_size):
            if isinstance(result, DataError):
                raise result
            transcripts.append(result)
        return transcripts

    def each(
        self,
        sounds: Iterable[SoundSource],
        settings: SpeechSettings,
        *,
        raw: RawFormat | None = None,
        batch_size: int | None = None,
        on_segment: OnSegment | None = None,
    ) -> Iterator[Transcript | DataError]:
        """The texts of sounds as they are done, in order; of a sound that cannot be read, the error.

        Args:
            sounds, raw, batch_size: as for `transcribe`.
            settings: how they are transcribed.
            on_segment: called with the number of a sound and each of its segments.

        Yields:
            A `Transcript` or a `DataError` for each sound.

        Raises:
            ConfigError: a setting beyond the model.
        """
        self._check(settings)
        size = BATCH if batch_size is None else batch_size
        check_integer("transcribe", "batch_size", size, 1, " stretches of sound")
        waiting, first = iter(sounds), 0
        while part := list(itertools.islice(waiting, size)):
            features, errors, stretches = dict[int, SoundFeatures](), dict[int, DataError](), list[Stretch]()
            for number, sound in enumerate(part, start=first):
                try:
                    features[number] = SoundFeatures(sound, self.processor, raw)
                    stretches += self._stretches(number, features[number], settings.gate)
                except DataError as error:
                    errors[number] = error
            segments = self._segments(stretches, features, settings.search, size)
            for number in range(first, first + len(part)):
                if number in features:
                    features[number].close()
                if number in errors:
                    yield errors[number]
                    continue
                transcript = _transcript(features[number].info, segments.get(number, []))
                for segment in transcript.segments if on_segment is not None else ():
                    on_segment(number, segment)
                yield transcript
            first += len(part)

    def see(self, sound: SoundSource, *, start: float = 0.0) -> SoundMaps:
        """What the decoder looks at in a sound as it writes each word.

        Args:
            sound: as one of `transcribe`.
            start: of the stretch that is shown, in seconds; 60 s from there, or what is left.

        Returns:
            Weights of cross-attention by head and word over time, with `page`, `png`, `terminal` and `save`. A word's
            time is from the largest weight of its first token to that of its last one.

        Raises:
            DataError: a sound that cannot be read, or in which no words are recognized.
            ConfigError: a start beyond the sound.
        """
        return look_with_recognizer(self, sound, start=start, seconds=MAX_SECONDS)

    def decode(self, spectrograms: Sequence[Tensor], search: Greedy | Beam = Greedy()) -> list[list[Hypothesis]]:
        """The best hypotheses of spectrograms that run together.

        Args:
            spectrograms: of the processor, (F, num_mels) each.
            search: `Greedy()` or `Beam()`.

        Returns:
            A list of hypotheses for each spectrogram, best first.
        """
        module = in_evaluation(self.module)
        parameter = next(module.parameters())
        lengths = torch.tensor([len(x) for x in spectrograms], device=parameter.device)
        inputs = torch.nn.utils.rnn.pad_sequence(list(spectrograms), batch_first=True)
        limits = torch.tensor([self._max_tokens(len(x)) for x in spectrograms], device=parameter.device)
        with torch.inference_mode():
            state, tokens = module.prefill(inputs.to(parameter.device, parameter.dtype), lengths)
            constraints = ConstraintState(Constraints(), module.vocabulary, tokens[:, None], limits)
            if isinstance(search, Beam):
                return beam_search(module, state, tokens, limits, search, constraints)
            return decode_stepwise(module, state, tokens, limits, choose_greedy, constraints)

    def _check(self, settings: SpeechSettings) -> None:
        """Raise ConfigError for settings that the model does not have."""
        usual = {field.name: field.default for field in fields(SpeechSettings)}
        name = name_of(self.module.config)
        for option in OF_WHISPER:
            if (x := getattr(settings, option)) != usual[option]:
                raise ConfigError(
                    f"{option}={x!r}: a {name} that was trained from nothing has no such setting; leave it out, or use "
                    "a Whisper model"
                )
        if settings.timestamps and settings.gate is None:
            raise ConfigError(
                f"timestamps=True: a {name} that was trained from nothing writes no times; give a gate, which splits "
                "sounds at pauses (--gate), or use a Whisper model"
            )
        if settings.fallback not in (Fallback(), Fallback(temperatures=(0.0,))):
            raise ConfigError(f"fallback={settings.fallback}: a {name} is not sampled from; leave it out")
        if settings.window != usual["window"]:
            raise ConfigError(f"window={settings.window!r}: a {name} has no window; leave it out")

    def _stretches(self, number: int, features: SoundFeatures, gate: EnergyGate | None) -> list[Stretch]:
        """The stretches of a sound, without silence if there is a gate; DataError if one is too long."""
        frames = features.frames
        spans = [(0, frames)] if gate is None else gate.spans(features.energies[:frames])
        longest = max((end - start for start, end in spans), default=0) / FRAME_RATE
        if longest > MAX_SECONDS:
            what = "lasts" if gate is None else "has a stretch without a pause of"
            remedy = "give a gate, which splits it at pauses (--gate), or split it" if gate is None else "split it"
            raise DataError(
                f"{features.info.name} {what} {longest:.1f} s, and a {name_of(self.module.config)} reads at most "
                f"{MAX_SECONDS} s at once; {remedy}"
            )
        return [Stretch(number, start, end) for start, end in spans]

    def _segments(
        self, stretches: Sequence[Stretch], features: Mapping[int, SoundFeatures], search: Greedy | Beam, size: int
    ) -> dict[int, list[Recognized]]:
        """What was recognized in each sound, in order; the longest stretches run first."""
        order = sorted(range(len(stretches)), key=lambda i: stretches[i].start - stretches[i].end)
        hypotheses: dict[int, list[Hypothesis]] = {}
        for first in range(0, len(order), size):
            rows = order[first : first + size]
            inputs = [
                features[sound].window(start, end - start) for sound, start, end in (stretches[row] for row in rows)
            ]
            hypotheses.update(zip(rows, self.decode(inputs, search), strict=True))
        recognized: dict[int, list[Recognized]] = {}
        for row, stretch in enumerate(stretches):
            recognized.setdefault(stretch.sound, []).append(self._recognized(stretch, hypotheses[row]))
        return recognized

    def _max_tokens(self, frames: int) -> int:
        """Maximum number of tokens of a text, its end included."""
        training = self.config.get("training")
        rate = training.get("tokens_per_second") if isinstance(training, dict) else None
        if not isinstance(rate, int | float) or isinstance(rate, bool) or not 0 < rate < FRAME_RATE:
            rate = FRAME_RATE / self.module.config.reduction
        return math.ceil(SPARE * rate * frames / FRAME_RATE) + 1

    def _recognized(self, stretch: Stretch, hypotheses: list[Hypothesis]) -> Recognized:
        best, *others = hypotheses
        text = self.tokenizer.decode(best.tokens)
        segment = Segment(
            start=stretch.start / FRAME_RATE,
            end=stretch.end / FRAME_RATE,
            text=text,
            tokens=tuple(best.tokens),
            log_prob=best.score,
            no_speech=None,
            temperature=0.0,
            compression_ratio=compression_ratio(text),
        )
        candidates = (Candidate(self.tokenizer.decode(one.tokens).strip(), one.score) for one in hypotheses)
        return Recognized(segment, tuple(candidates) if others else ())


def _transcript(info: SoundInfo, parts: list[Recognized]) -> Transcript:
    """The transcript of a sound; segments without text are left out."""
    return Transcript(
        text=" ".join(text for segment, _ in parts if (text := segment.text.strip())),
        language=None,
        language_probability=None,
        segments=tuple(segment for segment, _ in parts if segment.text.strip()),
        info=info,
        candidates=parts[0].candidates if len(parts) == 1 else (),
    )
