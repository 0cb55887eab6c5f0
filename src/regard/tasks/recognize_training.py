"""Training of a speech recognizer from nothing."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, final

import numpy as np
import torch
from torch import Tensor, nn

from regard.audio.mel import FRAME_RATE
from regard.audio.spec_augment import spec_augment
from regard.audio.spectrogram import SpectrogramProcessor
from regard.data.record import BadRow, Record
from regard.data.sampler import Rows
from regard.errors import ConfigError, nearest
from regard.layers.output_projection import IGNORED
from regard.models.joint_ctc import ctc_positions
from regard.models.registry import build, config_from_plain
from regard.models.seq2seq import Vocabulary
from regard.tasks.recognize import Recognizer
from regard.tasks.registry import RECOGNIZERS
from regard.tasks.spoken_texts import SpokenTexts
from regard.tasks.task import Loss, Task
from regard.tasks.text_pairs import vocabulary_of
from regard.tasks.utterances import Utterance, utterance, utterance_tables

NORMALIZATIONS = ("utterance", "corpus")
FRAMES_PER_TOKEN = 8  # frames of a spectrogram that count as a token of a batch


class UtteranceBatch(NamedTuple):
    """Utterances as an encoder-decoder takes them."""

    inputs: Tensor  # (B, F, M): normalized spectrograms
    lengths: Tensor  # (B,): frames without padding
    targets: Tensor  # (B, T): start token, ids, padding
    labels: Tensor  # (B, T): ids, end token, then IGNORED
    tokens: int  # labels other than IGNORED


@final
class Recognize(Task):
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
            self._config(Vocabulary(size=options.vocab_size or 300))

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
            SpectrogramProcessor(num_mels=self._config(Vocabulary(size=300)).num_mels)
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

    def build(self) -> nn.Module:
        module: nn.Module = (
            build(self._config(vocabulary_of(self.data.processor))) if self.start is None else self.start.module
        )
        return module

    def sizes(self, split: str, rows: Rows) -> np.ndarray[Any, Any]:
        store = self.store(split)
        frames, target = store.lengths("mels", rows), store.lengths("target", rows) + 1
        return np.stack([np.maximum(-(-frames // FRAMES_PER_TOKEN), target), target], 1)

    def units(self, rows: Rows) -> int:
        return int(self.data.train.lengths("target", rows).sum()) + len(rows)

    def batch(self, split: str, rows: Sequence[int] | Rows) -> UtteranceBatch:
        store, vocabulary = self.store(split), vocabulary_of(self.data.processor)
        mels, texts = zip(*(store.row(int(row)) for row in rows), strict=True)
        lengths = torch.tensor([len(x) for x in mels])
        spectrograms = [torch.from_numpy(np.array(x, np.float32)) for x in mels]
        inputs = nn.utils.rnn.pad_sequence(spectrograms, batch_first=True)
        if split == "train" and self.augment:  # torch's default generator is seeded by the step
            inputs = spec_augment(inputs, lengths)
        length = 1 + max(map(len, texts))
        targets = torch.full((len(texts), length), vocabulary.pad)
        labels = torch.full((len(texts), length), IGNORED)
        targets[:, 0] = vocabulary.bos
        for i, ids in enumerate(texts):
            row = torch.from_numpy(np.array(ids, np.int64))
            targets[i, 1 : len(row) + 1] = row
            labels[i, : len(row)] = row
            labels[i, len(row)] = vocabulary.eos
        return UtteranceBatch(inputs, lengths, targets, labels, sum(len(ids) + 1 for ids in texts))

    def batch_units(self, batch: UtteranceBatch) -> int:
        return batch.tokens

    def loss(self, module: nn.Module, batch: UtteranceBatch) -> Loss:
        smoothing = self.options.label_smoothing if torch.is_grad_enabled() else 0.0
        output = module(batch.inputs, batch.lengths, batch.targets)
        loss = output.cross_entropy(batch.labels, label_smoothing=smoothing)
        return Loss(loss.smoothed, loss.plain)

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
        config = self._config(vocabulary_of(self.data.processor)) if self.start is None else self.start.module.config
        if not config.ctc_weight:
            return 0
        store = self.data.train
        states = -(-store.lengths("mels") // config.reduction)
        maybe = np.flatnonzero(2 * store.lengths("target") > states)  # at most as many blanks as tokens
        return sum(ctc_positions(store.row(int(row))[1].tolist()) > states[row] for row in maybe)

    def _config(self, vocabulary: Vocabulary) -> Any:
        """The configuration of a model that starts from random weights."""
        options, settings = self.options, dict(self.options.model_settings or {})
        if "vocabulary" in settings:
            raise ConfigError("model_settings: vocabulary is that of the tokenizer; leave it out")
        if options.dropout is not None:
            settings.setdefault("dropout", options.dropout)
        return config_from_plain(options.model or self.models[0], {**settings, "vocabulary": vocabulary})
