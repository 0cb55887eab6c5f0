"""Base of the tasks that train an encoder-decoder on text pairs."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from torch import nn

from regard.data.record import BadRow, Record
from regard.data.rows import Pair
from regard.data.sampler import Rows
from regard.decode.generate import generate, twice_as_long
from regard.decode.search import Greedy
from regard.errors import ConfigError
from regard.layers.attention_config import AttentionConfig
from regard.models.registry import config_from_plain
from regard.models.seq2seq import Vocabulary
from regard.models.transformer import size_settings
from regard.tasks.encoder_decoder import EncoderDecoderTask, SequenceBatch, vocabulary_of
from regard.tasks.task import JobOptions
from regard.tasks.text_pairs import TextPairs, collate, text_pair

MOST_TARGETS = 99.9  # percentile of the targets' excess length that the maximum length allows for
SUBWORDS = 8000  # default size of the tokenizer
WHOLE_TEXT = 48  # tokens below which texts are never split, whatever the training's lengths


class TextToText(EncoderDecoderTask):
    """A task that trains an encoder-decoder on text pairs."""

    models: ClassVar[tuple[str, ...]] = ("transformer", "rnn", "luong", "convs2s")
    rows = "pairs"
    cuts_sources: ClassVar[bool] = False  # whether too long sources are truncated; otherwise their rows are left out

    def check_options(self) -> None:
        if self.start is None:
            self.model_config(Vocabulary(size=self.options.vocab_size or SUBWORDS))

    def make_preparation(self) -> TextPairs:
        self.check_start()
        return TextPairs(
            vocab_size=self.options.vocab_size or SUBWORDS,
            max_tokens=self.options.max_tokens,
            tokenizer=None if self.start is None else self.start.tokenizer,
            cuts_sources=self.cuts_sources,
        )

    def check_start(self) -> None:
        """Raise ConfigError for a starting model of another task."""
        if self.start is not None and not isinstance(self.start, self.runner):
            raise ConfigError(
                f"start={self.options.start!r} is a {type(self.start).__name__}, which is for another job; expected "
                f"one to {self.name}"
            )

    @classmethod
    def convert(cls, record: Record) -> Pair | BadRow:
        return text_pair(record)

    @property
    def tokenizer(self) -> Any:
        """The tokenizer; available once the data is prepared."""
        return self.data.processor

    @property
    def summary(self) -> str:
        return f"{super().summary}; {self.tokenizer.size:,} subwords"

    def sizes(self, split: str, rows: Rows) -> np.ndarray[Any, Any]:
        store = self.store(split)
        source, target = store.lengths("source", rows), store.lengths("target", rows)
        return np.stack([np.maximum(source, target) + 1, source], 1)

    def batch(self, split: str, rows: Sequence[int] | Rows) -> SequenceBatch:
        store = self.store(split)
        vocabulary = vocabulary_of(self.tokenizer)
        return collate([store.row(int(row)) for row in rows], vocabulary)

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
        described = {**training, **self.sizes_of_training(), "data": self.data.counts}
        self.runner(module, self.tokenizer, {"training": described}).save(folder)

    def sizes_of_training(self) -> dict[str, Any]:
        """Lengths of the training texts, which set the runner's defaults."""
        lengths = self.data.train.lengths("source")
        split_length = min(max(WHOLE_TEXT, int(np.percentile(lengths, 90)) + 1), self.options.max_tokens)
        return {"max_tokens": self.options.max_tokens, "usual_tokens": split_length, **self._target_lengths()}

    def _target_lengths(self) -> dict[str, Any]:
        """Target lengths relative to sources, in tokens: the overall ratio, and the excess over twice the source."""
        sources, targets = (self.data.train.lengths(column) for column in ("source", "target"))
        excess = int(np.percentile(targets - 2 * sources, MOST_TARGETS)) + 1
        return {"length_ratio": float(targets.sum() / sources.sum()), "target_excess": max(excess, 0)}

    def model_config(self, vocabulary: Vocabulary) -> Any:
        return model_config(self.options, self.models[0], vocabulary)


def model_config(options: JobOptions, default: str, vocabulary: Vocabulary) -> Any:
    """The configuration of the encoder-decoder that the options name.

    Args:
        options: of the run.
        default: architecture if they name none.
        vocabulary: joint, of source and target.

    Returns:
        The model's configuration.

    Raises:
        ConfigError: an unknown model, size or setting.
    """
    settings, name = dict(options.model_settings or {}), options.model or default
    for setting in ("vocabulary", "attention"):
        if setting in settings:
            raise ConfigError(f"model_settings: {setting}={settings[setting]!r} has an option of its own; set it there")
    if options.dropout is not None:
        settings.setdefault("dropout", options.dropout)
    if options.size is not None:
        if name != "transformer":
            raise ConfigError(f"size={options.size!r}: only transformer has sizes, not {name}; set its fields")
        settings = {**size_settings(options.size), **settings}
    if name == "transformer":
        settings.setdefault("norm", "pre")  # learns in fewer steps, and at higher rates, than the published one
    attention = AttentionConfig.from_plain(options.attention or {})
    choices = {} if name == "pointer-generator" else {"attention": attention}
    return config_from_plain(name, {**settings, **choices, "vocabulary": vocabulary})
