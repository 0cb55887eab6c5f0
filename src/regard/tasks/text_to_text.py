"""Text to text: training an encoder-decoder on pairs of texts, which several jobs share."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from torch import nn

from regard.data.files import shown_name
from regard.data.prepare import Prepared, prepare
from regard.data.record import BadRow, Record
from regard.data.rows import Pair
from regard.data.sampler import Rows
from regard.data.store import RecordStore
from regard.decode.generate import generate, twice_as_long
from regard.decode.search import Greedy
from regard.errors import ConfigError
from regard.layers.attention_config import AttentionConfig
from regard.models.registry import build, config_from_plain
from regard.models.seq2seq import Vocabulary
from regard.models.transformer import size_settings
from regard.tasks.task import JobOptions, Loss, Progress, Task
from regard.tasks.text_pairs import TextBatch, TextPairs, collate, text_pair, vocabulary_of

MOST_TARGETS = 99.9  # percent of the targets, whose length is taken for usual
WHOLE_TEXT = 48  # tokens of a text that may stay whole whatever the training's texts had


class TextToText(Task):
    """A job that an encoder-decoder learns from pairs of texts."""

    models: ClassVar[tuple[str, ...]] = ("transformer", "rnn", "luong", "convs2s")
    cuts_sources: ClassVar[bool] = False  # whether a source that is too long is cut, rather than its row left out

    def __init__(self, options: JobOptions, start: Any = None) -> None:
        super().__init__(options, start)
        if start is not None and not isinstance(start, self.runner):
            raise ConfigError(
                f"start: {type(start).__name__} of {options.start!r} is for another job; expected one to {self.name}"
            )
        if start is None:
            self._config(Vocabulary(size=options.vocab_size))  # wrong names end here
        self.preparation = TextPairs(
            vocab_size=options.vocab_size,
            max_tokens=options.max_tokens,
            tokenizer=None if start is None else start.tokenizer,
            cuts_sources=self.cuts_sources,
        )
        self.data: Prepared[Pair]

    @classmethod
    def convert(cls, record: Record) -> Pair | BadRow:
        return text_pair(record)

    def prepare(self, folder: Path, progress: Progress) -> None:
        valid, held_out = self.valid_reader, self.options.held_out
        self.data = prepare(self.reader, folder, self.preparation, valid=valid, held_out=held_out, progress=progress)

    @property
    def notes(self) -> list[str]:
        return [f"{shown_name(file)}: {note}" for file, note in self.data.counts.get("read_as", {}).items()]

    @property
    def tokenizer(self) -> Any:
        """The tokenizer, once the data is prepared."""
        return self.data.processor

    @property
    def summary(self) -> str:
        return f"{summary_of(self.data.counts, 'pairs')}; {self.tokenizer.size:,} subwords"

    @property
    def digests(self) -> Mapping[str, str]:
        data = self.data
        return {"tokenizer": self.tokenizer.fingerprint, "train": data.train.digest, "valid": data.valid.digest}

    @property
    def counts(self) -> Mapping[str, int]:
        return {"train": len(self.data.train), "valid": len(self.data.valid)}

    def build(self) -> nn.Module:
        if self.start is not None:
            module: nn.Module = self.start.module
            return module
        made: nn.Module = build(self._config(vocabulary_of(self.tokenizer)))
        return made

    def sizes(self, split: str, rows: Rows) -> np.ndarray[Any, Any]:
        store = self._store(split)
        source, target = store.lengths("source", rows), store.lengths("target", rows)
        return np.stack([np.maximum(source, target) + 1, source], 1)

    def units(self, rows: Rows) -> int:
        return int(self.data.train.lengths("target", rows).sum()) + len(rows)

    def batch(self, split: str, rows: Sequence[int] | Rows) -> TextBatch:
        store = self._store(split)
        vocabulary = vocabulary_of(self.tokenizer)
        return collate([store.row(int(row)) for row in rows], vocabulary)

    def batch_units(self, batch: TextBatch) -> int:
        return batch.tokens

    def loss(self, module: nn.Module, batch: TextBatch) -> Loss:
        smoothing = self.options.label_smoothing if torch.is_grad_enabled() else 0.0
        output = module(batch.inputs, batch.lengths, batch.targets)
        loss = output.cross_entropy(batch.labels, label_smoothing=smoothing)
        return Loss(loss.smoothed, loss.plain)

    def sample(self, module: nn.Module, number: int) -> list[tuple[str, str]]:
        pair = self.data.valid_records[number % len(self.data.valid_records)]
        ids = self.tokenizer.encode(pair.source)[: self.options.max_tokens]
        excess = self._target_lengths()["target_excess"]
        [[best]] = generate(
            module,  # type: ignore[arg-type]
            [ids],
            search=Greedy(),
            max_length=lambda source: twice_as_long(source) + excess,
        )
        return [("source", pair.source), ("target", pair.target), ("output", self.tokenizer.decode(best.tokens))]

    def save(self, folder: Path, module: nn.Module, training: Mapping[str, Any]) -> None:
        lengths = self.data.train.lengths("source")
        usual = min(max(WHOLE_TEXT, int(np.percentile(lengths, 90)) + 1), self.options.max_tokens)
        sizes = {"max_tokens": self.options.max_tokens, "usual_tokens": usual, **self._target_lengths()}
        self.runner(module, self.tokenizer, {"training": {**training, **sizes, "data": self.data.counts}}).save(folder)

    def _target_lengths(self) -> dict[str, Any]:
        """How long targets are beside their sources, in tokens: all together, and by how many they exceed twice."""
        sources, targets = (self.data.train.lengths(column) for column in ("source", "target"))
        excess = int(np.percentile(targets - 2 * sources, MOST_TARGETS)) + 1
        return {"length_ratio": float(targets.sum() / sources.sum()), "target_excess": max(excess, 0)}

    def _store(self, split: str) -> RecordStore:
        return self.data.train if split == "train" else self.data.valid

    def _config(self, vocabulary: Vocabulary) -> Any:
        return model_config(self.options, self.models[0], vocabulary)


def model_config(options: JobOptions, default: str, vocabulary: Vocabulary) -> Any:
    """The configuration of the encoder-decoder that the options name.

    Args:
        options: of the run.
        default: architecture where they name none.
        vocabulary: of source and target together.

    Returns:
        The model's configuration.

    Raises:
        ConfigError: an unknown model, size or setting.
    """
    settings, name = dict(options.model_settings or {}), options.model or default
    for setting in ("vocabulary", "attention"):
        if setting in settings:
            raise ConfigError(
                f"model_settings: {setting}={settings[setting]!r} is not set there; it has its own option"
            )
    if options.dropout is not None:
        settings.setdefault("dropout", options.dropout)
    if options.size is not None:
        if name != "transformer":
            raise ConfigError(f"size={options.size!r}: only transformer has sizes, not {name}; set its fields")
        settings = {**size_settings(options.size), **settings}
    if name == "transformer":
        settings.setdefault("norm", "pre")  # learns in fewer steps, and at higher rates, than the published one
    attention = AttentionConfig.from_plain(options.attention or {})
    return config_from_plain(name, {**settings, "vocabulary": vocabulary, "attention": attention})


def summary_of(counts: Mapping[str, Any], rows: str) -> str:
    """One line about prepared data: rows to train on and held out, and what was left out."""
    reasons = {**counts.get("left_out", {}), **counts["skipped"]}
    left = ", ".join(f"{count:,} {reason}" for reason, count in reasons.items())
    return f"{counts['train']:,} {rows} to train on, {counts['valid']:,} held out; left out: {left or 'none'}"
