"""Text classifier: an encoder, attentive pooling, and a score for each label.

Source: Lin et al. 2017, "A Structured Self-attentive Sentence Embedding", arXiv 1703.03130.
"""

import math
from dataclasses import dataclass
from typing import NamedTuple, final

import torch
from torch import Tensor, nn

from regard.attention.summary import Summary
from regard.errors import ConfigError
from regard.layers.attentive_pooling import AttentivePooling
from regard.layers.dropout import Dropout
from regard.layers.linear import Linear
from regard.layers.recurrent import BidirectionalLSTM
from regard.models.bert import Bert, BertConfig
from regard.models.check import check_fields
from regard.models.padding import check_texts
from regard.models.seq2seq import Vocabulary

WEIGHTS = Summary(weights=True)


@final
@dataclass(frozen=True, kw_only=True)
class TextClassifierConfig:
    """The sizes and choices of a text classifier.

    Args:
        vocabulary: of the texts.
        num_labels: labels to choose from.
        multi_label: whether a text may have any number of labels; else it has one.
        encoder: configuration of a published encoder, whose states are pooled; None for a bidirectional LSTM.
        embed_dim: of the tokens' vectors, without a published encoder.
        hidden_dim: u, of the LSTM's states in each direction, likewise.
        num_layers: of the LSTM, likewise.
        hops: r, weighted means of a text.
        align_dim: d_a, the size that states are projected to for their weights.
        penalty: coefficient of the term that keeps hops apart, ||A A^T - I||^2 a text (section 2.2).
        dropout: of embedded tokens and of the pooled vector.

    Raises:
        ConfigError: a field that is out of range.
    """

    vocabulary: Vocabulary
    num_labels: int
    multi_label: bool = False
    encoder: BertConfig | None = None
    embed_dim: int = 128
    hidden_dim: int = 128
    num_layers: int = 1
    hops: int = 4
    align_dim: int = 64
    penalty: float = 0.0
    dropout: float = 0.3

    def __post_init__(self) -> None:
        check_fields(self)
        if not 0 <= self.penalty < math.inf:
            raise ConfigError(f"TextClassifierConfig: penalty={self.penalty} must be at least 0 and finite")


class TextClassifierOutput(NamedTuple):
    """Outputs of a text classifier."""

    logits: Tensor  # (B, labels)
    hidden: Tensor  # (B, S, D): the encoder's states
    penalty: Tensor  # (): the term that keeps hops apart, a mean over the texts; 0 unless the model trains with it


@final
class TextClassifier(nn.Module):
    """A bidirectional LSTM, or a published encoder, under attentive pooling and a linear map to labels.

    Args:
        config: its sizes and choices.

    Raises:
        ConfigError: sizes that don't go together.

    Source: Lin et al. 2017, arXiv 1703.03130, section 2; the classifier on top is one linear map here.

    >>> model = TextClassifier(TextClassifierConfig(vocabulary=Vocabulary(size=50), num_labels=3, embed_dim=8))
    >>> model(torch.tensor([[5, 6, 2], [7, 2, 0]]), torch.tensor([3, 2])).logits.shape
    torch.Size([2, 3])
    """

    def __init__(self, config: TextClassifierConfig) -> None:
        super().__init__()
        self.config, self.vocabulary = config, config.vocabulary
        self.encoder: nn.Module
        if config.encoder is None:
            self.embedding: nn.Embedding | None = nn.Embedding(config.vocabulary.size, config.embed_dim)
            nn.init.normal_(self.embedding.weight, std=0.1)
            self.encoder = BidirectionalLSTM(
                config.embed_dim, config.hidden_dim, config.num_layers, dropout=Dropout(config.dropout)
            )
            size = 2 * config.hidden_dim
        else:
            self.embedding, self.encoder, size = None, Bert(config.encoder), config.encoder.embed_dim
        self.pooling = AttentivePooling(size, hops=config.hops, align_dim=config.align_dim)
        self.dropout = Dropout(config.dropout)
        self.output = Linear(config.hops * size, config.num_labels)

    @property
    def longest(self) -> int | None:
        """Tokens that a text may have at most, marks counted; None for no bound."""
        return None if self.config.encoder is None else self.encoder.longest

    def forward(self, inputs: Tensor, lengths: Tensor | None = None) -> TextClassifierOutput:
        """The logits of each label.

        Args:
            inputs: token ids (B, S), with the marks that the encoder was trained with.
            lengths: (B,), how many tokens of each text are not padding; None for all.

        Returns:
            A `TextClassifierOutput`.

        Raises:
            ShapeError: something else than token ids (B, S) and lengths (B,), or more tokens than the encoder reads.
        """
        check_texts(inputs, lengths)
        hidden = self._encode(inputs, lengths)
        penalty = hidden.new_zeros(())
        if self.training and self.config.penalty:
            pooled, seen = self.pooling(hidden, lengths, summary=WEIGHTS)
            weights = seen.weights[:, :, 0].float()
            apart = weights @ weights.transpose(1, 2) - torch.eye(weights.shape[1], device=weights.device)
            penalty = self.config.penalty * apart.square().sum((1, 2)).mean()
        else:
            pooled = self.pooling(hidden, lengths)
        return TextClassifierOutput(self.output(self.dropout(pooled.flatten(1))), hidden, penalty)

    def _encode(self, inputs: Tensor, lengths: Tensor | None) -> Tensor:
        """The encoder's states (B, S, D)."""
        if self.embedding is None:
            states: Tensor = self.encoder.encode(inputs, lengths)
            return states
        embedded = self.dropout(self.embedding(inputs))
        if lengths is None:
            lengths = inputs.new_full((len(inputs),), inputs.shape[1])
        outputs: Tensor = self.encoder(embedded, lengths)[0]
        return outputs
