"""Interface of bidirectional text encoders, such as BERT.

Padding is on the right; `models.padding.to_right` moves it there.

Shapes: B texts, L tokens, D features, N tokens in the vocabulary.
"""

from abc import ABC, abstractmethod
from typing import Any, NamedTuple

from torch import Tensor, nn

from regard.attention.engine.tracing import opaque
from regard.attention.patterns.pattern import Full, Pattern
from regard.attention.patterns.sequence_pattern import KeyLengths
from regard.errors import ShapeError
from regard.models.padding import check_texts


class EncoderOutput(NamedTuple):
    """Output of a text encoder; undefined at padding."""

    hidden: Tensor  # (B, L, D): last hidden states
    logits: Tensor | None  # (B, L, N): of the token at each position; None without a masked language model head
    pooled: Tensor | None  # (B, D): the pooler's output for the first token; None without a pooler


class TextEncoder(nn.Module, ABC):
    """A bidirectional text encoder."""

    config: Any  # the frozen dataclass that it was built from

    @property
    @abstractmethod
    def max_length(self) -> int:
        """Maximum number of tokens of a text, special tokens included."""

    @abstractmethod
    def read(self, tokens: Tensor, pattern: Pattern, token_types: Tensor | None) -> Tensor:
        """The last hidden states (B, L, D) of tokens (B, L), under an attention pattern."""

    @abstractmethod
    def project(self, hidden: Tensor) -> Tensor | None:
        """The logits (..., N) of the token at each position, from hidden (..., D); None without such a head."""

    @abstractmethod
    def pool(self, hidden: Tensor) -> Tensor | None:
        """The pooler's outputs (B, D), from hidden (B, L, D); None without a pooler."""

    def encode(self, tokens: Tensor, lengths: Tensor | None = None, token_types: Tensor | None = None) -> Tensor:
        """The last hidden states.

        Args:
            tokens: as for `forward`.
            lengths: as for `forward`.
            token_types: as for `forward`.

        Returns:
            (B, L, D).

        Raises:
            ShapeError: as for `forward`.
        """
        check_texts(tokens, lengths)
        if tokens.shape[1] > self.max_length:
            raise ShapeError(
                f"tokens has length {tokens.shape[1]}, and the model has {self.max_length} positions; shorten the texts"
            )
        if token_types is not None and token_types.shape != tokens.shape:
            raise ShapeError(
                f"token_types has shape {tuple(token_types.shape)}; expected the shape of tokens, {tuple(tokens.shape)}"
            )
        full = lengths is None or (not opaque() and bool((lengths >= tokens.shape[1]).all()))
        return self.read(tokens, Full() if full else KeyLengths(lengths), token_types)

    def forward(
        self, tokens: Tensor, lengths: Tensor | None = None, *, token_types: Tensor | None = None
    ) -> EncoderOutput:
        """Run the encoder and its heads.

        Args:
            tokens: token ids (B, L), with the special tokens that the model was trained with.
            lengths: (B,), the number of tokens of each text without padding; None for no padding.
            token_types: (B, L), the segment of each token in pairs of texts; None for all 0.

        Returns:
            An `EncoderOutput`.

        Raises:
            ShapeError: not token ids (B, L), lengths (B,) and token types (B, L), or more tokens than the model has
                positions.
        """
        hidden = self.encode(tokens, lengths, token_types)
        return EncoderOutput(hidden, self.project(hidden), self.pool(hidden))
