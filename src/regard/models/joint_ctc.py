"""What speech recognizers share: spectrograms as inputs, and connectionist temporal classification beside attention.

The CTC head maps each encoder state to a distribution over the vocabulary and a blank, and its loss is the negative
log-probability of all alignments of a text with the states. An encoder that has to align them learns what attention can
look for. The blank is the vocabulary's padding token, which no text has.

Layout: B utterances, F frames of M mel bands, S encoder states, T target tokens, N tokens of the vocabulary.
"""

import itertools
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from regard.attention.check import is_number, show
from regard.errors import ConfigError, ShapeError
from regard.layers.output_projection import IGNORED, CrossEntropy, OutputProjection
from regard.models.padding import check_lengths
from regard.models.seq2seq import Memory, Vocabulary


class SpeechOutput(NamedTuple):
    """Output of a speech recognizer on whole targets."""

    hidden: Tensor  # (B, T, F): the decoder's last hidden states
    projection: OutputProjection  # from hidden states to logits
    memory: Memory
    ctc: OutputProjection | None  # from encoder states to logits of CTC; None without it
    ctc_weight: float
    vocabulary: Vocabulary

    @property
    def logits(self) -> Tensor:
        """Logits (B, T, N) of the token after each target token; computed at each access."""
        return self.projection.logits(self.hidden)

    @property
    def ctc_logits(self) -> Tensor | None:
        """Logits (B, S, N) of each encoder state, that of the blank at `vocabulary.pad`; None without CTC."""
        return None if self.ctc is None else self.ctc.logits(self.memory.states)

    def cross_entropy(self, labels: Tensor, *, label_smoothing: float = 0.0) -> CrossEntropy:
        """Cross entropy of labels (B, T); the loss to minimize adds the CTC loss, times its weight.

        Args:
            labels: token ids, each row ending with `vocabulary.eos`; `IGNORED` at padding.
            label_smoothing: of the cross entropy, as for `OutputProjection.cross_entropy`.

        Returns:
            Sums over the labels: "smoothed" with the CTC loss, "plain" the decoder's negative log-likelihood.
        """
        loss = self.projection.cross_entropy(self.hidden, labels, label_smoothing=label_smoothing)
        logits = self.ctc_logits if torch.is_grad_enabled() else None
        if logits is None:
            return loss
        ctc = ctc_loss(logits, self.memory.lengths, labels, self.vocabulary)
        return CrossEntropy(loss.smoothed + self.ctc_weight * ctc, loss.plain, loss.count)


def ctc_loss(logits: Tensor, lengths: Tensor, labels: Tensor, vocabulary: Vocabulary) -> Tensor:
    """CTC loss, summed over utterances; 0 for one with fewer states than `ctc_positions` of its text.

    Args:
        logits: (B, S, N), that of the blank at `vocabulary.pad`.
        lengths: (B,), numbers of states that are not padding.
        labels: (B, T), token ids; end tokens and `IGNORED` are left out.
        vocabulary: of the text.

    Returns:
        (), in float32, or in float64 if the logits are.

    Source: Graves et al. 2006, "Connectionist Temporal Classification", section 4.1; beside attention: Kim et al. 2016,
    arXiv 1609.06773, section 3.2.
    """
    dtype = torch.promote_types(logits.dtype, torch.float32)
    log_probs = logits.log_softmax(-1, dtype=dtype).transpose(0, 1)
    is_text = (labels != IGNORED) & (labels != vocabulary.eos)
    return functional.ctc_loss(
        log_probs, labels[is_text], lengths, is_text.sum(1), blank=vocabulary.pad, reduction="sum", zero_infinity=True
    )


def ctc_positions(tokens: Sequence[int]) -> int:
    """Minimum number of encoder states with which CTC can align a text: one a token, and a blank between equal ones.

    >>> ctc_positions([5, 6, 6, 7])
    5
    """
    return len(tokens) + sum(a == b for a, b in itertools.pairwise(tokens))


def check_spectrograms(owner: str, inputs: Tensor, lengths: Tensor | None, num_mels: int) -> None:
    """Raise ShapeError unless these are spectrograms (B, F, M) and lengths (B,) or None."""
    fits = isinstance(inputs, Tensor) and inputs.dim() == 3 and inputs.is_floating_point()
    if not fits or inputs.shape[2] != num_mels or not inputs.shape[1]:
        raise ShapeError(
            f"{owner}: inputs is {show(inputs)}; expected log-mel spectrograms, floats of shape (batch, frames, "
            f"{num_mels}) with at least one frame"
        )
    check_lengths(inputs, lengths)


def check_ctc_weight(owner: str, ctc_weight: float) -> None:
    """Raise ConfigError unless the weight is a number that is not negative."""
    if not is_number(ctc_weight) or ctc_weight < 0:
        raise ConfigError(f"{owner}: ctc_weight={show(ctc_weight)} must be at least 0; 0 for no CTC")


def without_padding(x: Tensor, lengths: Tensor) -> Tensor:
    """x (B, S, ...) with 0 at padding, whatever is there."""
    is_padding = torch.arange(x.shape[1], device=x.device) >= lengths[:, None]
    return x.masked_fill(is_padding.view(*is_padding.shape, *[1] * (x.dim() - 2)), 0.0)


def halved(lengths: Tensor) -> Tensor:
    """Half of each length, rounded up: positions after a stride of 2."""
    return (lengths + 1) // 2
