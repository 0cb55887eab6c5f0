"""Base of the tasks that train an encoder-decoder: batches of targets and labels, the loss, the configuration."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from regard.data.sampler import Rows
from regard.errors import ConfigError
from regard.layers.output_projection import IGNORED
from regard.models.registry import build, config_from_plain
from regard.models.seq2seq import Vocabulary
from regard.tasks.task import Loss, Task


def vocabulary_of(tokenizer: Any) -> Vocabulary:
    """The vocabulary that a model needs for a tokenizer."""
    return Vocabulary(size=tokenizer.size, pad=tokenizer.pad, bos=tokenizer.bos, eos=tokenizer.eos)


class SequenceBatch(NamedTuple):
    """A batch of an encoder-decoder."""

    inputs: Tensor  # (B, ...): token ids, spectrograms or pictures
    lengths: Tensor | None  # (B,): inputs that are not padding; None for no padding
    targets: Tensor  # (B, T): start tokens, ids, padding
    labels: Tensor  # (B, T): ids and end token, else IGNORED
    tokens: int  # labels other than IGNORED


def with_targets(
    inputs: Tensor,
    lengths: Tensor | None,
    texts: Sequence[Any],
    vocabulary: Vocabulary,
    start: Sequence[int] | None = None,
) -> SequenceBatch:
    """A batch with the targets and labels of texts.

    Args:
        inputs: (B, ...), of the encoder.
        lengths: (B,); None for no padding.
        texts: ids of each text, without special tokens.
        vocabulary: of the texts.
        start: tokens before each text; by default the start token.

    Returns:
        The batch.
    """
    start = [vocabulary.bos] if start is None else start
    first = len(start)
    length = first + max(map(len, texts))
    targets = np.full((len(texts), length), vocabulary.pad, np.int64)
    labels = np.full((len(texts), length), IGNORED, np.int64)
    targets[:, :first] = start
    for i, ids in enumerate(texts):
        end = first + len(ids)
        targets[i, first:end] = ids
        labels[i, first - 1 : end - 1] = ids
        labels[i, end - 1] = vocabulary.eos
    tokens = sum(len(ids) + 1 for ids in texts)
    return SequenceBatch(inputs, lengths, torch.from_numpy(targets), torch.from_numpy(labels), tokens)


class EncoderDecoderTask(Task):
    """A task that trains an encoder-decoder; units are target tokens, end tokens among them."""

    def build(self) -> nn.Module:
        if self.start is not None:
            module: nn.Module = self.start.module
            return module
        return build(self.model_config(vocabulary_of(self.data.processor)))  # type: ignore[no-any-return]

    def units(self, rows: Rows) -> int:
        return int(self.data.train.lengths("target", rows).sum()) + len(rows)

    def batch_units(self, batch: SequenceBatch) -> int:
        return batch.tokens

    def loss(self, module: nn.Module, batch: SequenceBatch) -> Loss:
        smoothing = self.options.label_smoothing if torch.is_grad_enabled() else 0.0
        output = module(batch.inputs, batch.lengths, batch.targets)
        loss = output.cross_entropy(batch.labels, label_smoothing=smoothing)
        return Loss(loss.smoothed, loss.plain)

    def model_config(self, vocabulary: Vocabulary) -> Any:
        """The configuration of a model that starts from random weights.

        Args:
            vocabulary: of the targets.

        Returns:
            The model's configuration.

        Raises:
            ConfigError: an unknown setting or value.
        """
        options, settings = self.options, dict(self.options.model_settings or {})
        if "vocabulary" in settings:
            raise ConfigError("model_settings: vocabulary is that of the tokenizer; leave it out")
        if options.dropout is not None:
            settings.setdefault("dropout", options.dropout)
        return config_from_plain(options.model or self.models[0], {**settings, "vocabulary": vocabulary})
