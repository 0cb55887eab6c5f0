"""Training of a speech recognizer from nothing."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, final

import numpy as np
import torch
from torch import nn

from regard.audio.mel import FRAME_RATE
from regard.audio.spec_augment import spec_augment
from regard.audio.spectrogram import SpectrogramProcessor
from regard.data.record import BadRow, Record
from regard.data.sampler import Rows
from regard.errors import ConfigError, nearest
from regard.models.joint_ctc import ctc_positions
from regard.models.seq2seq import Vocabulary
from regard.tasks.encoder_decoder import EncoderDecoderTask, SequenceBatch, vocabulary_of, with_targets
from regard.tasks.recognize import Recognizer
from regard.tasks.registry import RECOGNIZERS
from regard.tasks.spoken_texts import SpokenTexts
from regard.tasks.utterances import Utterance, utterance, utterance_tables

NORMALIZATIONS = ("utterance", "corpus")
FRAMES_PER_TOKEN = 8  # frames of a spectrogram that count as a token of a batch


@final
class Recognize(EncoderDecoderTask):
    """Training a recognizer on utterances, from random weights or from another one.

    The loss is the cross entropy of the decoder plus the CTC loss of the encoder, times the model's `ctc_weight`; the
    CTC loss of an utterance that is too short for its text is 0, and how many there are is reported.
    """

    name = Recognizer.job
    runner = Recognizer
    fields = {"audio": "audio", "text": "text"}  # noqa: RUF012
    models = RECOGNIZERS
    rows = "utterances"

    def check_options(self) -> None:
        options = self.options
        self.refuse(parallel=options.parallel, attention=options.attention, size=options.size)
        if options.model not in (None, *self.models):
            raise ConfigError(f"model={options.model!r} is no recognizer; {nearest(options.model, self.models)}")
        if self.start is not None and not isinstance(self.start, Recognizer):
            raise ConfigError(f"start={options.start!r} is a {type(self.start).__name__}; expected a recognizer")
        settings = self.settings("augment", "normalization")
        self.augment = settings.get("augment", True)
        if not isinstance(self.augment, bool):
            raise ConfigError(f"task_settings: augment={self.augment!r} must be true or false")
        self.normalization = settings.get("normalization", "utterance")
        if self.normalization not in NORMALIZATIONS:
            raise ConfigError(
                f"task_settings: normalization={self.normalization!r} is unknown; expected "
                f"{' or '.join(NORMALIZATIONS)}"
            )
        if self.start is None:
            self.model_config(Vocabulary(size=options.vocab_size or 300))

    @classmethod
    def convert(cls, record: Record) -> Utterance | BadRow:
        return utterance(record)

    @classmethod
    def read(cls, files: Sequence[str], **how: Any) -> Any:
        """As for every task; of a folder, its metadata.csv, with the columns file_name and text."""
        tables, how = utterance_tables(files, how)
        return super().read(tables, **how)

    def make_preparation(self) -> SpokenTexts:
        start, options = self.start, self.options
        spectrograms = (
            SpectrogramProcessor(num_mels=self.model_config(Vocabulary(size=300)).num_mels)
            if start is None
            else start.processor
        )
        return SpokenTexts(
            spectrograms,
            normalization=self.normalization,
            vocab_size=options.vocab_size,
            max_tokens=options.max_tokens,
            tokenizer=None if start is None else start.tokenizer,
            skip=options.skip_bad_rows,
        )

    @property
    def summary(self) -> str:
        seconds = int(self.data.train.lengths("mels").sum()) / FRAME_RATE
        unit = "characters and bytes" if self.options.vocab_size is None and self.start is None else "subwords"
        return f"{super().summary}; {seconds / 60:,.1f} minutes; {self.data.processor.size:,} {unit}"

    @property
    def notes(self) -> list[str]:
        short = self._too_short()
        if not short:
            return super().notes
        note = (
            f"{short:,} of {len(self.data.train):,} utterances are too short for CTC to align their texts: their CTC "
            "loss is 0; a lower --model.reduction, or subwords (--vocab-size), would change that"
        )
        return [*super().notes, note]

    def sizes(self, split: str, rows: Rows) -> np.ndarray[Any, Any]:
        store = self.store(split)
        frames, target = store.lengths("mels", rows), store.lengths("target", rows) + 1
        return np.stack([np.maximum(-(-frames // FRAMES_PER_TOKEN), target), target], 1)

    def batch(self, split: str, rows: Sequence[int] | Rows) -> SequenceBatch:
        store = self.store(split)
        mels, texts = zip(*(store.row(int(row)) for row in rows), strict=True)
        lengths = torch.tensor([len(x) for x in mels])
        spectrograms = [torch.from_numpy(np.array(x, np.float32)) for x in mels]
        inputs = nn.utils.rnn.pad_sequence(spectrograms, batch_first=True)
        if split == "train" and self.augment:  # torch's default generator is seeded by the step
            inputs = spec_augment(inputs, lengths)
        return with_targets(inputs, lengths, texts, vocabulary_of(self.data.processor))

    def sample(self, module: nn.Module, number: int) -> list[tuple[str, str]]:
        record = self.data.valid_records[number % len(self.data.valid_records)]
        [transcript] = self._runner(module, {}).transcribe([record.audio])
        return [("audio", record.audio), ("text", record.text), ("output", str(transcript))]

    def save(self, folder: Path, module: nn.Module, training: Mapping[str, Any]) -> None:
        self._runner(module, {**training, "data": self.data.counts}).save(folder)

    def _runner(self, module: Any, training: Mapping[str, Any]) -> Recognizer:
        store = self.data.train
        rate = float(((store.lengths("target") + 1) / store.lengths("mels")).max()) * FRAME_RATE
        config = {"training": {**training, "tokens_per_second": round(rate, 3)}}
        return Recognizer(module, self.data.processor, config, self.preparation.spectrograms)

    def _too_short(self) -> int:
        """Number of utterances with fewer encoder states than CTC needs for their texts."""
        config = (
            self.model_config(vocabulary_of(self.data.processor)) if self.start is None else self.start.module.config
        )
        if not config.ctc_weight:
            return 0
        store = self.data.train
        states = -(-store.lengths("mels") // config.reduction)
        maybe = np.flatnonzero(2 * store.lengths("target") > states)  # at most as many blanks as tokens
        return sum(ctc_positions(store.row(int(row))[1].tolist()) > states[row] for row in maybe)
