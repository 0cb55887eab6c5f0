"""Training of a speech recognizer on utterances: fine-tuning of Whisper."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, final

import numpy as np
import torch
from torch import nn

from regard.audio.languages import language_code
from regard.audio.mel import FRAME_RATE
from regard.audio.spec_augment import spec_augment
from regard.data.record import BadRow, Record
from regard.data.sampler import Rows
from regard.errors import ConfigError
from regard.tasks.encoder_decoder import EncoderDecoderTask, SequenceBatch, with_targets
from regard.tasks.speech_settings import SHORT_SECONDS
from regard.tasks.transcribe import Transcriber
from regard.tasks.utterances import Utterance, Utterances, utterance, utterance_tables

FRAMES_PER_TOKEN = 8  # frames of a spectrogram that count as a token of a batch: two thirds of a target token's work


@final
class Transcribe(EncoderDecoderTask):
    """Fine-tuning a speech model on utterances.

    A batch is padded with silence to 10 seconds if all of it is shorter, else to the model's window. The trained model
    transcribes with the same windows.
    """

    name = Transcriber.job
    runner = Transcriber
    fields = {"audio": "audio", "text": "text"}  # noqa: RUF012
    models = ("whisper",)
    rows = "utterances"
    fine_tuning_rate = 5e-5

    def check_options(self) -> None:
        options = self.options
        self.refuse(
            parallel=options.parallel, attention=options.attention, vocab_size=options.vocab_size, size=options.size
        )
        if not isinstance(self.start, Transcriber):
            what = "nothing" if self.start is None else f"a {type(self.start).__name__}"
            raise ConfigError(
                f"start={options.start!r} is {what}; a recognizer is trained from a speech model: give --from with a "
                "Whisper checkpoint, such as openai/whisper-base; or from nothing with --model listener or "
                "--model speech-transformer"
            )
        settings = self.settings("language", "augment")
        self.augment = settings.get("augment", True)
        if not isinstance(self.augment, bool):
            raise ConfigError(f"task_settings: augment={self.augment!r} must be true or false")
        language = settings.get("language")
        self.language = None if language is None else language_code(str(language))
        if self.language is not None and self.start.tokens.languages:
            self.start.tokens.language_token(self.language)

    @classmethod
    def convert(cls, record: Record) -> Utterance | BadRow:
        return utterance(record)

    @classmethod
    def read(cls, files: Sequence[str], **how: Any) -> Any:
        """As for every task; of a folder, its metadata.csv, with the columns file_name and text."""
        tables, how = utterance_tables(files, how)
        return super().read(tables, **how)

    def make_preparation(self) -> Utterances:
        start: Transcriber = self.start
        prompt = start.tokens.prompt(language=self.language or start.languages[0], task="transcribe", times=False)
        return Utterances(
            start.processor,
            start.tokenizer,
            max_target=start.module.config.max_length - len(prompt) - 1,
            language=self.language,
            detect=start.detect_language,
            skip=self.options.skip_bad_rows,
        )

    @property
    def summary(self) -> str:
        seconds = int(self.data.train.lengths("mels").sum()) / FRAME_RATE
        language = self.preparation.language
        return f"{super().summary}; {seconds / 60:,.1f} minutes" + (f", language {language}" if language else "")

    def sizes(self, split: str, rows: Rows) -> np.ndarray[Any, Any]:
        store = self.store(split)
        frames, target = store.lengths("mels", rows), store.lengths("target", rows)
        padded = np.array([self._window(int(x)) for x in frames])
        return np.stack([np.maximum(padded // FRAMES_PER_TOKEN, target), target], 1)

    def batch(self, split: str, rows: Sequence[int] | Rows) -> SequenceBatch:
        store = self.store(split)
        mels, texts = zip(*(store.row(int(row)) for row in rows), strict=True)
        lengths = torch.tensor([len(x) for x in mels])
        window = self._window(int(lengths.max()))
        inputs = torch.empty(len(mels), window, self.start.processor.num_mels)
        for x, own in zip(inputs, mels, strict=True):
            sound = torch.from_numpy(np.array(own, np.float32))
            x[: len(sound)] = sound
            x[len(sound) :] = sound.max() - 2.0  # silence: the floor of the normalization, 8 powers of ten lower
        if split == "train" and self.augment:  # torch's default generator is seeded by the step
            inputs = spec_augment(inputs, lengths)
        return with_targets(inputs, None, texts, self.start.module.vocabulary, start=self._prompt)

    def sample(self, module: nn.Module, number: int) -> list[tuple[str, str]]:
        record = self.data.valid_records[number % len(self.data.valid_records)]
        [transcript] = self._runner(module, {}).transcribe([record.audio])
        return [("audio", record.audio), ("text", record.text), ("output", str(transcript))]

    def save(self, folder: Path, module: nn.Module, training: Mapping[str, Any]) -> None:
        self._runner(module, {**training, "data": self.data.counts}).save(folder)

    def _runner(self, module: Any, training: Mapping[str, Any]) -> Transcriber:
        speech = {"window": "auto", "language": self.preparation.language}
        config = {**self.start.config, "training": {**training, **speech}}
        return Transcriber(module, self.start.tokenizer, config, self.start.processor)

    @property
    def _prompt(self) -> list[int]:
        tokens: list[int] = self.start.tokens.prompt(language=self.preparation.language, task="transcribe", times=False)
        return tokens

    def _window(self, frames: int) -> int:
        """Frames that an utterance is padded to."""
        whole: int = self.start.processor.window_frames
        short = SHORT_SECONDS * FRAME_RATE
        return short if frames <= short < whole else whole
