"""A speech model as one object: what `regard.load` gives for Whisper's checkpoints."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal, final

import torch
from torch import Tensor

from regard.attention.check import check_integer
from regard.audio.activity import EnergyGate
from regard.audio.decoding import RawFormat, SoundSource
from regard.audio.features import SoundFeatures
from regard.audio.mel import FRAME_RATE, AudioProcessor
from regard.decode.search import Beam, Greedy
from regard.errors import DataError
from regard.layers.evaluation import in_evaluation
from regard.lens.sound_maps import SoundMaps
from regard.lens.view import View
from regard.models.seq2seq import Memory
from regard.models.whisper import STRIDE, Whisper
from regard.tasks.speech_decoding import Decoding, Fallback, WindowDecoder
from regard.tasks.speech_progress import SoundProgress
from regard.tasks.speech_runner import SpeechRunner
from regard.tasks.speech_settings import SpeechSettings
from regard.tasks.speech_tokens import SpeechTokens, alignment_heads
from regard.tasks.speech_view import look_at_sound, view_sound
from regard.tasks.transcript import Segment, Transcript, Word
from regard.tasks.word_times import time_tokens, words_of

BATCH, BATCH_BYTES = 16, 2**30  # windows in a batch, and bytes of their decoder caches
LANGUAGE_WINDOWS = 4  # in which a language is looked for
SHORT_WINDOW = Fallback(no_speech=None)  # a doubtful text of a short window is replaced by the full window's
OnSegment = Callable[[int, Segment], None]


@final
class Transcriber(SpeechRunner):
    """Speech-recognition model with its tokenizer, as `regard.load` returns it.

    Args:
        module: the torch module.
        tokenizer: its tokenizer.
        config: what else is known of it, config.json's and generation_config.json's fields under "published".
        processor: how sound becomes model inputs; None for log-mel spectrograms of the model's size.
    """

    job: ClassVar[str] = "transcribe"
    writes_times: ClassVar[bool] = True
    parse_processor = AudioProcessor.from_published
    tokenizer_files: ClassVar[str] = "tokenizer.json, or vocab.json and merges.txt,"

    def __init__(
        self,
        module: Whisper,
        tokenizer: Any,
        config: Mapping[str, Any] | None = None,
        processor: AudioProcessor | None = None,
    ) -> None:
        super().__init__(module, tokenizer, config)
        sizes = module.config
        seconds = max(1, STRIDE * sizes.source_length // FRAME_RATE)
        self.processor = (
            AudioProcessor(num_mels=sizes.num_mels, chunk_seconds=seconds) if processor is None else processor
        )

    @property
    def tokens(self) -> SpeechTokens:
        """The special tokens: languages, tasks and times."""
        return SpeechTokens.of(self.module, self.tokenizer, self.published_fields)

    @property
    def languages(self) -> list[str]:
        """Codes of the languages that the model knows."""
        return list(self.tokens.languages) or ["en"]

    def transcribe(
        self,
        sounds: Sequence[SoundSource],
        *,
        language: str | None = None,
        language_threshold: float = 0.5,
        to: str | None = None,
        timestamps: bool | None = None,
        words: bool = False,
        prompt: str | None = None,
        hotwords: str | None = None,
        carry: bool = False,
        search: Greedy | Beam = Greedy(),
        fallback: Fallback = Fallback(),
        window: Literal["full", "auto"] | None = None,
        gate: EnergyGate | None = None,
        raw: RawFormat | None = None,
        batch_size: int | None = None,
    ) -> list[Transcript]:
        """The texts of sounds; `str` of one is its text.

        Sounds run together, window by window; the text of each is the same in any batch.

        Args:
            sounds: names of files, bytes or binary files, or (samples, rate) with samples (N,) or (N, channels).
            language: as `SpeechSettings` has it; None for that of the training data, or else to detect it.
            language_threshold, to, timestamps, words, prompt, hotwords, carry: as `SpeechSettings` has them.
            search, fallback, gate: likewise.
            window: likewise; None for "auto" of a model that was trained so, else "full".
            raw: format of raw samples; None for files whose header tells it.
            batch_size: windows that run together; None for 16, or fewer of a large model.

        Returns:
            A `Transcript` for each sound, in order.

        Raises:
            DataError: a sound that is missing, damaged, or no sound.
            ConfigError: a setting that is unknown, out of range, or beyond the model.
        """
        language = self.default_language if language is None else language
        settings = SpeechSettings(
            language=language, language_threshold=language_threshold, to=to, timestamps=timestamps, words=words,
            prompt=prompt, hotwords=hotwords, carry=carry, search=search, fallback=fallback,
            window=self.default_window if window is None else window, gate=gate,
        )  # fmt: skip
        if isinstance(sounds, str | Path | bytes | tuple) or hasattr(sounds, "read"):
            raise DataError("sounds must be a list; put one sound into a list of its own")
        transcripts = []
        for result in self.each(sounds, settings, raw=raw, batch_size=batch_size):
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
            on_segment: called with the number of a sound and each of its segments as soon as it is decoded.

        Yields:
            A `Transcript` or a `DataError` for each sound.

        Raises:
            ConfigError: a setting beyond the model.
        """
        special = self.tokens
        settings.check(self.module, special)
        size = self._batch_size() if batch_size is None else batch_size
        check_integer("transcribe", "batch_size", size, 1, " windows")
        decoder = WindowDecoder(in_evaluation(self.module), self.tokenizer, special, settings.search, settings.fallback)
        prompt = self._encoded(settings.prompt)
        active: list[SoundProgress] = []
        ready: dict[int, Transcript | DataError] = {}
        waiting, yielded = enumerate(sounds), 0
        try:
            while True:
                while len(active) < size and (item := next(waiting, None)) is not None:
                    try:
                        features = SoundFeatures(item[1], self.processor, raw)
                    except DataError as error:
                        ready[item[0]] = error
                        continue
                    length = self.module.config.source_length
                    active.append(SoundProgress(item[0], features, settings, special, length, prompt, decoder.text))
                running = [one for one in active if not one.done]
                if running:
                    with torch.inference_mode():
                        self._decode_windows(running, decoder, settings, on_segment)
                for one in [one for one in active if one.done]:
                    ready[one.number] = one.finish()
                    one.features.close()
                    active.remove(one)
                while yielded in ready:
                    yield ready.pop(yielded)
                    yielded += 1
                if not active and not running:
                    return
        finally:
            for one in active:
                one.features.close()

    @property
    def default_language(self) -> str | None:
        """Code of the language of the training data; None to detect it."""
        language = self._training.get("language")
        return language if isinstance(language, str) else None

    @property
    def default_window(self) -> Literal["full", "auto"]:
        """Window that the model was trained with."""
        return "auto" if self._training.get("window") == "auto" else "full"

    def detect_language(self, sounds: Sequence[SoundSource]) -> str | None:
        """The language that most of the sounds are in, by the sum of probabilities.

        Args:
            sounds: as for `transcribe`; those that cannot be read are skipped.

        Returns:
            Its code; None of a model of one language, or of no sounds.
        """
        if not self.tokens.languages:
            return None
        votes: dict[str, float] = {}
        settings = SpeechSettings(fallback=Fallback(temperatures=(0.0,)), window="auto")
        for result in self.each(sounds, settings):
            if isinstance(result, Transcript) and result.language is not None:
                votes[result.language] = votes.get(result.language, 0.0) + (result.language_probability or 0.0)
        return max(votes, key=votes.__getitem__) if votes else None

    def see(self, sound: SoundSource, *, start: float = 0.0) -> SoundMaps:
        """What the decoder looks at in a sound as it writes each word.

        Args:
            sound: as one of `transcribe`.
            start: of the window that is shown, in seconds; the model reads 30 s from there, or what is left.

        Returns:
            Weights of cross-attention by head and word over time, with `page`, `png`, `terminal` and `save`.

        Raises:
            DataError: a sound that cannot be read, a window that is silent, or one in which no words are recognized.
            ConfigError: a start beyond the sound.
        """
        return look_at_sound(self, sound, start=start)

    def view(self, sound: SoundSource, *, start: float = 0.0, grid: int = 64, top: int = 8) -> View:
        """All attentions over a window of a sound in bins: self-attention of the encoder too, without L x S memory.

        Args:
            sound, start: as for `see`.
            grid: maximum number of bins on each side of a map.
            top: number of the largest weights that are kept of each token and each position.

        Returns:
            The maps of all layers and heads, over seconds of sound and tokens of the text.

        Raises:
            DataError, ConfigError: as for `see`.
        """
        return view_sound(self, sound, start=start, grid=grid, top=top)

    @property
    def _training(self) -> Mapping[str, Any]:
        training = self.config.get("training")
        return training if isinstance(training, dict) else {}

    @property
    def published_fields(self) -> Mapping[str, Any]:
        """Fields of the checkpoint's config.json and generation_config.json."""
        fields: Mapping[str, Any] = self.config.get("published") or {}
        return fields

    def _batch_size(self) -> int:
        config = self.module.config
        window = 8 * config.decoder_layers * config.source_length * config.embed_dim  # keys and values, in float32
        return max(1, min(BATCH, BATCH_BYTES // window))

    def _encoded(self, text: str | None) -> list[int]:
        return self.tokenizer.encode(" " + text.strip()) if text and text.strip() else []

    def _decode_windows(
        self,
        running: list[SoundProgress],
        decoder: WindowDecoder,
        settings: SpeechSettings,
        on_segment: OnSegment | None,
    ) -> None:
        """The next windows of some sounds: those of the size of the first one's, with as many tokens before them."""
        max_previous, hotwords = self.module.config.max_length // 2 - 1, self._encoded(settings.hotwords)
        before = {one.number: [*hotwords, *one.previous][-max_previous:] for one in running}
        kind = running[0].window, len(before[running[0].number])
        batch = [one for one in running if (one.window, len(before[one.number])) == kind]
        inputs, memory = self._encode(decoder, [(one, one.seek) for one in batch])
        self._detect(decoder, batch, memory, settings)
        languages = [one.language.code for one in batch]
        decodings: list[Decoding] = [None] * len(batch)  # type: ignore[list-item]
        for task in dict.fromkeys(map(settings.task, languages)):
            rows = [row for row, code in enumerate(languages) if settings.task(code) == task]
            for times in dict.fromkeys(batch[row].times for row in rows):
                part = [row for row in rows if batch[row].times == times]
                own = decoder.decode(
                    inputs[part],
                    memory if len(part) == len(batch) else memory.keep(torch.tensor(part, device=inputs.device)),
                    [languages[row] for row in part],
                    task=task,
                    times=times,
                    before=[before[batch[row].number] for row in part],
                    final=batch[0].short is None,
                )
                for row, decoding in zip(part, own, strict=True):
                    decodings[row] = decoding
        doubtful = [
            one.short is not None and SHORT_WINDOW.is_doubtful(x) for one, x in zip(batch, decodings, strict=True)
        ]
        words = self._words(decoder, batch, memory, decodings, settings) if settings.words else [None] * len(batch)
        for one, decoding, own_words, again in zip(batch, decodings, words, doubtful, strict=True):
            if again:
                one.short = None  # decoded again, in a full window
                continue
            for segment in one.take(decoding, own_words):
                if on_segment is not None:
                    on_segment(one.number, segment)

    def _encode(self, decoder: WindowDecoder, windows: Sequence[tuple[SoundProgress, int]]) -> tuple[Tensor, Memory]:
        parameter = next(decoder.module.parameters())
        inputs = torch.stack([one.features.window(seek, one.window) for one, seek in windows])
        inputs = inputs.to(parameter.device, parameter.dtype)
        # One by one on the CPU, where a batch is no faster: no window's states depend on the others.
        parts = inputs.split(1 if inputs.is_cpu else len(inputs))
        states, lengths, _ = zip(*map(decoder.module.encode, parts), strict=True)
        return inputs, Memory(torch.cat(states), torch.cat(lengths))

    def _detect(
        self, decoder: WindowDecoder, batch: Sequence[SoundProgress], memory: Memory, settings: SpeechSettings
    ) -> None:
        """Find the languages of the sounds whose first windows these are."""
        rows = [row for row, one in enumerate(batch) if one.language.code is None and one.special.languages]
        if not rows:
            return
        part = memory if len(rows) == len(batch) else memory.keep(torch.tensor(rows, device=memory.states.device))
        for row, language in zip(rows, decoder.detect(part), strict=True):
            one = batch[row]
            one.language = language
            for number in range(1, LANGUAGE_WINDOWS):
                seek = one.seek + number * one.full
                if (one.language.probability or 0) >= settings.language_threshold or seek >= one.features.frames:
                    break
                [other] = decoder.detect(self._encode(decoder, [(one, seek)])[1])
                one.language = max(one.language, other, key=lambda x: x.probability or 0)

    def _words(
        self,
        decoder: WindowDecoder,
        batch: Sequence[SoundProgress],
        memory: Memory,
        decodings: Sequence[Decoding],
        settings: SpeechSettings,
    ) -> list[list[tuple[Word, int]] | None]:
        """The words of windows, and the numbers of their tokens."""
        special, words = self.tokens, [[] for _ in batch]
        texts = [one.text_tokens(decoding) for one, decoding in zip(batch, decodings, strict=True)]
        rows = [row for row, text in enumerate(texts) if text]
        if not rows:
            return list(words)
        chosen = [batch[row] for row in rows]
        prompts = [
            special.prompt(language=one.language.code, task=settings.task(one.language.code), times=False)
            for one in chosen
        ]
        timed = time_tokens(
            decoder.module,
            memory if len(rows) == len(batch) else memory.keep(torch.tensor(rows, device=memory.states.device)),
            [texts[row] for row in rows],
            prompts,
            [one.frames for one in chosen],
            special,
            alignment_heads(self.module, self.published_fields),
        )
        for row, one, times in zip(rows, chosen, timed, strict=True):
            words[row] = words_of(self.tokenizer, texts[row], times, one.language.code, one.seek)
        return list(words)
