"""Text classifier: an encoder, attentive pooling and a linear layer.

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
    """Configuration of a `TextClassifier`.

    Args:
        vocabulary: number of tokens and special tokens.
        num_labels: number of labels.
        multi_label: whether a text may have any number of labels, instead of exactly one.
        encoder: configuration of a Bert encoder; None for a bidirectional LSTM.
        embed_dim: size of the LSTM's token embeddings.
        hidden_dim: u, size of the LSTM's states in each direction.
        num_layers: number of LSTM layers.
        hops: r, number of attention hops: weighted means of the hidden states.
        align_dim: d_a, hidden size of the attention's score.
        penalty: coefficient of the penalty ||A A^T - I||^2 of each text, which makes hops differ (section 2.2).
        dropout: dropout of embeddings and of the pooled vector.

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
            raise ConfigError(f"TextClassifierConfig: penalty={self.penalty} must be finite and at least 0")


class TextClassifierOutput(NamedTuple):
    """Output of a text classifier."""

    logits: Tensor  # (B, num_labels)
    hidden: Tensor  # (B, S, D): the encoder's hidden states
    penalty: Tensor  # (): the penalty on similar hops, mean over texts; 0 unless in training mode with penalty > 0


@final
class TextClassifier(nn.Module):
    """A bidirectional LSTM or Bert encoder, attentive pooling, and a linear layer to the logits of labels.

    Args:
        config: sizes and options.

    Raises:
        ConfigError: inconsistent sizes.

    Source: Lin et al. 2017, arXiv 1703.03130, section 2; the classifier on top is a single linear layer here.

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
    def max_length(self) -> int | None:
        """Maximum number of tokens of a text, special tokens included; None if unlimited."""
        return None if self.config.encoder is None else self.encoder.max_length

    def forward(self, inputs: Tensor, lengths: Tensor | None = None) -> TextClassifierOutput:
        """The logits of labels.

        Args:
            inputs: token ids (B, S), with the special tokens that the encoder was trained with.
            lengths: (B,), the number of tokens of each text without padding; None for no padding.

        Returns:
            A `TextClassifierOutput`.

        Raises:
            ShapeError: not token ids (B, S) and lengths (B,), or more tokens than the encoder has positions.
        """
        check_texts(inputs, lengths)
        hidden = self._encode(inputs, lengths)
        penalty = hidden.new_zeros(())
        if self.training and self.config.penalty:
            pooled, summary_result = self.pooling(hidden, lengths, summary=WEIGHTS)
            weights = summary_result.weights[:, :, 0].float()
            overlap = weights @ weights.transpose(1, 2) - torch.eye(weights.shape[1], device=weights.device)
            penalty = self.config.penalty * overlap.square().sum((1, 2)).mean()
        else:
            pooled = self.pooling(hidden, lengths)
        return TextClassifierOutput(self.output(self.dropout(pooled.flatten(1))), hidden, penalty)

    def _encode(self, inputs: Tensor, lengths: Tensor | None) -> Tensor:
        """The encoder's hidden states (B, S, D)."""
        if self.embedding is None:
            hidden: Tensor = self.encoder.encode(inputs, lengths)
            return hidden
        embedded = self.dropout(self.embedding(inputs))
        if lengths is None:
            lengths = inputs.new_full((len(inputs),), inputs.shape[1])
        outputs: Tensor = self.encoder(embedded, lengths)[0]
        return outputs
