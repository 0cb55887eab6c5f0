"""What every model can do that goes on from a text: be trained, and be run a token at a time.

Training sees whole texts (`forward`); running goes `start`, which reads a prompt at once, then `step` after `step`.
Both give the same logits for the same tokens. Padding stands at the right, where `lengths` ends.

Layout: B texts, L tokens, K hypotheses of each text, D features, N the vocabulary.
"""

from abc import ABC, abstractmethod
from typing import Any, NamedTuple, final

from torch import Tensor, nn

from regard.attention.cache import KeyValueCache
from regard.attention.sequence_pattern import KeyLengths
from regard.layers.step import CausalStep, causal_step
from regard.models.padding import check_texts
from regard.models.places import Places
from regard.models.seq2seq import State, Vocabulary


class LanguageModelOutput(NamedTuple):
    """What a model says of texts."""

    logits: Tensor  # (B, L, N): of the token after each token
    hidden: Tensor  # (B, L, D): what the logits are projected from


@final
class PromptState(State):
    """Keys and values of the tokens so far, a cache a layer: of K hypotheses of each of B texts, all of one length."""

    def __init__(self, layers: nn.ModuleList, prompts: Tensor) -> None:
        self.steps: list[CausalStep] = [causal_step(layer) for layer in layers]
        self.past = [KeyValueCache.for_pattern(layer.self_attention.pattern) for layer in layers]
        self.places = Places(len(prompts), prompts.device)
        self.length = 0

    def reorder(self, parents: Tensor) -> None:
        self.places.reorder(parents, self.past)

    def keep(self, sentences: Tensor) -> None:
        self.places.keep(sentences, self.past)


class LanguageModel(nn.Module, ABC):
    """A model of the next token after each token: causal layers, a norm, and the logits."""

    config: Any  # the frozen dataclass that it was built from
    vocabulary: Vocabulary
    layers: nn.ModuleList  # of `CausalLayer`
    norm: nn.Module  # of the last layer's output

    @property
    def longest(self) -> int | None:
        """Tokens that a text may have at most; None for no bound."""
        return None

    @abstractmethod
    def embed(self, tokens: Tensor, start: int) -> Tensor:
        """The first layer's input (B, L, D) of tokens (B, L), the first of which stands at position `start`."""

    @abstractmethod
    def project(self, hidden: Tensor) -> Tensor:
        """The logits (..., N) of the next token, from what the norm gives (..., D)."""

    def forward(self, tokens: Tensor, lengths: Tensor | None = None) -> LanguageModelOutput:
        """The logits of the token after each token.

        Args:
            tokens: token ids (B, L).
            lengths: (B,), how many tokens of each text are not padding; None for all. Padding stands at the right, no
                token sees it, and what comes out at its places means nothing.

        Returns:
            A `LanguageModelOutput`: logits (B, L, N) and hidden (B, L, D).

        Raises:
            ShapeError: something else than token ids (B, L) and lengths (B,), or more tokens than the model has
                positions for.
        """
        check_texts(tokens, lengths)
        x = self.embed(tokens, 0)
        pattern = None if lengths is None else KeyLengths(lengths)
        for layer in self.layers:
            x = layer(x, pattern=pattern)
        hidden: Tensor = self.norm(x)
        return LanguageModelOutput(self.project(hidden), hidden)

    def start(self, prompts: Tensor) -> PromptState:
        """The state after prompts of one length.

        Args:
            prompts: token ids (B, L), read at once; L may be 0.

        Returns:
            The state, one hypothesis a prompt.
        """
        state = PromptState(self.layers, prompts)
        if prompts.shape[1]:
            self._go_on(prompts, state)
        return state

    def step(self, tokens: Tensor, state: PromptState) -> Tensor:
        """The hidden vectors (B, K, D) after one more token of each hypothesis (B, K); the state moves on."""
        found = self._go_on(state.places.inward(tokens).flatten()[:, None], state)
        return state.places.outward(found.view(*tokens.shape, -1))

    def _go_on(self, tokens: Tensor, state: PromptState) -> Tensor:
        """The hidden vectors (rows, L, D) after more tokens of each row (rows, L)."""
        x = self.embed(tokens, state.length)
        for step, past in zip(state.steps, state.past, strict=True):
            x = step(x, past)
        state.length += tokens.shape[1]
        hidden: Tensor = self.norm(x)
        return hidden
