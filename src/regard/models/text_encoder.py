"""What every model can do that reads a text as a whole: a vector for each token, and what is made of these.

Padding stands at the right, where `lengths` ends; `models.padding.to_right` brings it there.

Layout: B texts, L tokens, D features, N the vocabulary.
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
    """What a model says of texts. At the places of padding it means nothing."""

    hidden: Tensor  # (B, L, D)
    logits: Tensor | None  # (B, L, N): of the token that stands at each place; None without a masked-word head
    pooled: Tensor | None  # (B, D): of the whole text, from its first token; None without a pooler


class TextEncoder(nn.Module, ABC):
    """A model that reads texts as a whole."""

    config: Any  # the frozen dataclass that it was built from

    @property
    @abstractmethod
    def longest(self) -> int:
        """Tokens that a text may have at most, marks counted."""

    @abstractmethod
    def read(self, tokens: Tensor, pattern: Pattern, token_types: Tensor | None) -> Tensor:
        """The hidden vectors (B, L, D) of tokens (B, L), of which each sees those of the pattern."""

    @abstractmethod
    def project(self, hidden: Tensor) -> Tensor | None:
        """The logits (..., N) of the tokens that stand where hidden (..., D) was made; None without such a head."""

    @abstractmethod
    def pool(self, hidden: Tensor) -> Tensor | None:
        """The vectors (B, D) of whole texts, from hidden (B, L, D); None without a pooler."""

    def encode(self, tokens: Tensor, lengths: Tensor | None = None, token_types: Tensor | None = None) -> Tensor:
        """The hidden vectors alone.

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
        if tokens.shape[1] > self.longest:
            raise ShapeError(
                f"tokens has {tokens.shape[1]} places, and the model {self.longest} positions; shorten the texts"
            )
        if token_types is not None and token_types.shape != tokens.shape:
            raise ShapeError(
                f"token_types has shape {tuple(token_types.shape)}; expected that of tokens, {tuple(tokens.shape)}"
            )
        full = lengths is None or (not opaque() and bool((lengths >= tokens.shape[1]).all()))
        return self.read(tokens, Full() if full else KeyLengths(lengths), token_types)

    def forward(
        self, tokens: Tensor, lengths: Tensor | None = None, *, token_types: Tensor | None = None
    ) -> EncoderOutput:
        """What the model says of texts.

        Args:
            tokens: token ids (B, L), with the marks that the model was trained with.
            lengths: (B,), how many tokens of each text are not padding; None for all.
            token_types: (B, L), which of the texts that stand together each token is of; None for the first.

        Returns:
            An `EncoderOutput`.

        Raises:
            ShapeError: something else than token ids (B, L), lengths (B,) and types (B, L), or more tokens than the
                model has positions for.
        """
        hidden = self.encode(tokens, lengths, token_types)
        return EncoderOutput(hidden, self.project(hidden), self.pool(hidden))
