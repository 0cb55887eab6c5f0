"""Language models: trained on whole texts, decoded a token at a time.

Training calls the module itself, on whole texts; decoding calls `prefill`, which reads a prompt at once, then `step`
after `step`. Both give the same logits for the same tokens. Padding stands at the right, where `lengths` ends.

Layout: B texts, L tokens, K hypotheses of each text, D features, N the vocabulary.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, NamedTuple, final

import torch
from torch import Tensor, nn

from regard.attention.cache import KeyValueCache
from regard.attention.patterns.sequence_pattern import KeyLengths
from regard.errors import ShapeError
from regard.layers.output_projection import CrossEntropy, OutputProjection
from regard.layers.step import CausalStep, causal_step
from regard.models.cache_slots import CacheSlots
from regard.models.padding import check_texts
from regard.models.seq2seq import State, Vocabulary


class LanguageModelOutput(NamedTuple):
    """Outputs of a language model on whole texts."""

    hidden: Tensor  # (B, L, D): the last layer's states
    projection: OutputProjection  # of these to logits

    @property
    def logits(self) -> Tensor:
        """(B, L, N): of the token after each token. Computed when it is read."""
        return self.projection.logits(self.hidden)

    def cross_entropy(self, labels: Tensor, *, label_smoothing: float = 0.0) -> CrossEntropy:
        """Cross entropy of labels (B, L), see `OutputProjection.cross_entropy`."""
        return self.projection.cross_entropy(self.hidden, labels, label_smoothing=label_smoothing)


@final
class PromptState(State):
    """Keys and values of the tokens so far, a cache a layer: of K hypotheses of each of B texts, all of one length."""

    def __init__(self, layers: nn.ModuleList, prompts: Tensor) -> None:
        self.steps: list[CausalStep] = [causal_step(layer) for layer in layers]
        self.past = [KeyValueCache.for_pattern(layer.self_attention.pattern) for layer in layers]
        self.places = CacheSlots(len(prompts), prompts.device)
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
    continues_input = True  # what it writes goes on from what it reads
    copies = False

    @property
    def longest(self) -> int | None:
        """Tokens that a text may have at most; None for no bound."""
        return None

    @abstractmethod
    def embed(self, tokens: Tensor, start: int) -> Tensor:
        """The first layer's input (B, L, D) of tokens (B, L), the first of which stands at position `start`."""

    @property
    @abstractmethod
    def projection(self) -> OutputProjection:
        """The map from what the norm gives to logits."""

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
        return LanguageModelOutput(hidden, self.projection.as_called())

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

    def prefill(self, inputs: Tensor, lengths: Tensor | None = None) -> tuple[PromptState, Tensor]:
        """The state after prompts but for their last token, and that token of each (B,).

        Args:
            inputs: token ids (B, L), L >= 1.
            lengths: None, or L for each prompt: those of other lengths run in batches of their own.

        Returns:
            The state, one hypothesis a prompt; and the token that each goes on from.

        Raises:
            ShapeError: prompts of different lengths.
        """
        check_texts(inputs, lengths)
        if lengths is not None and bool((lengths != inputs.shape[1]).any()):
            others = lengths[lengths != inputs.shape[1]].tolist()
            raise ShapeError(f"lengths has {others[:8]}; expected prompts of one length, {inputs.shape[1]}, in a batch")
        return self.start(inputs[:, :-1]), inputs[:, -1]

    def step(self, tokens: Tensor, state: PromptState) -> Tensor:
        """The logits (B, K, N) after one more token of each hypothesis (B, K); `state` moves on."""
        return self.projection.logits(self.advance(tokens, state))

    def collate(self, sources: Sequence[Sequence[int]]) -> tuple[Tensor, None]:
        """Prompts of one length as `inputs` (B, L); an empty one is `bos`."""
        return torch.tensor([list(source) or [self.vocabulary.bos] for source in sources]), None

    def advance(self, tokens: Tensor, state: PromptState) -> Tensor:
        """The hidden vectors (B, K, D) after one more token of each hypothesis (B, K); the state moves on."""
        found = self._go_on(state.places.inward(tokens).flatten()[:, None], state)
        return state.places.outward(found.view(*tokens.shape, found.shape[-1]))

    def _go_on(self, tokens: Tensor, state: PromptState) -> Tensor:
        """The hidden vectors (rows, L, D) after more tokens of each row (rows, L)."""
        x = self.embed(tokens, state.length)
        for step, past in zip(state.steps, state.past, strict=True):
            x = step(x, past)
        state.length += tokens.shape[1]
        hidden: Tensor = self.norm(x)
        return hidden
