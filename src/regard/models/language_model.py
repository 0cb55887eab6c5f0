"""Interface of causal language models.

Training calls the module itself on whole texts; decoding calls `prefill` on prompts, then `step` for each token. Both
give the same logits. Padding is on the right.

Shapes: B texts, L tokens, K hypotheses of each text, D features, N tokens in the vocabulary.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, NamedTuple, final

import torch
from torch import Tensor, nn

from regard.attention.patterns.sequence_pattern import KeyLengths
from regard.errors import ShapeError
from regard.layers.decoder_stack import DecoderEnds
from regard.layers.output_projection import CrossEntropy, OutputProjection
from regard.layers.step import causal_step
from regard.models.cache_slots import CacheSlots
from regard.models.decoder_state import StackState
from regard.models.padding import check_texts
from regard.models.seq2seq import Vocabulary
from regard.models.step_positions import StepPositions


class LanguageModelOutput(NamedTuple):
    """Output of a language model on whole texts."""

    hidden: Tensor  # (B, L, D): last hidden states
    projection: OutputProjection  # from hidden states to logits

    @property
    def logits(self) -> Tensor:
        """Logits (B, L, N) of the token after each token; computed at each access."""
        return self.projection.logits(self.hidden)

    def cross_entropy(self, labels: Tensor, *, label_smoothing: float = 0.0) -> CrossEntropy:
        """Cross entropy of labels (B, L); see `OutputProjection.cross_entropy`."""
        return self.projection.cross_entropy(self.hidden, labels, label_smoothing=label_smoothing)


@final
class PromptState(StackState):
    """Decoding state of a language model: the KV caches of K hypotheses of each of B texts, all of one length."""

    def __init__(
        self,
        layers: nn.ModuleList,
        prompts: Tensor,
        ends: DecoderEnds | None = None,
        positions: StepPositions | None = None,
    ) -> None:
        slots = CacheSlots(len(prompts), prompts.device)
        super().__init__(layers, [causal_step(layer) for layer in layers], slots, ends, positions)

    def keep(self, sentences: Tensor) -> None:
        self.slots.keep(sentences, self.past)


class LanguageModel(nn.Module, ABC):
    """A causal language model: token embeddings, causal layers, a final norm and an output projection."""

    config: Any  # the frozen dataclass that it was built from
    vocabulary: Vocabulary
    layers: nn.ModuleList  # of `CausalLayer`
    norm: nn.Module  # of the last layer's output
    continues_input = True  # the target continues the source
    copies = False

    @property
    def max_length(self) -> int | None:
        """Maximum number of tokens of a text; None if unlimited."""
        return None

    @abstractmethod
    def embed(self, tokens: Tensor, start: int) -> Tensor:
        """The first layer's input (B, L, D), from tokens (B, L) whose first is at position `start`."""

    @property
    def ends(self) -> DecoderEnds | None:
        """What the model computes before and after its layers, for a step in one native call; None for no such step."""
        return None

    @property
    def step_positions(self) -> StepPositions | None:
        """Position embeddings of decoding steps; None if the model adds none."""
        return None

    @property
    @abstractmethod
    def projection(self) -> OutputProjection:
        """The projection from normalized hidden states to logits."""

    def forward(self, tokens: Tensor, lengths: Tensor | None = None) -> LanguageModelOutput:
        """Run the model on whole texts.

        Args:
            tokens: token ids (B, L), padded on the right.
            lengths: (B,), the number of tokens of each text without padding; None for no padding. Outputs at padding
                are undefined.

        Returns:
            A `LanguageModelOutput`: logits (B, L, N) of the token after each token, and hidden (B, L, D).

        Raises:
            ShapeError: not token ids (B, L) and lengths (B,), or more tokens than the model has positions.
        """
        check_texts(tokens, lengths)
        x = self.embed(tokens, 0)
        pattern = None if lengths is None else KeyLengths(lengths)
        for layer in self.layers:
            x = layer(x, pattern=pattern)
        hidden: Tensor = self.norm(x)
        return LanguageModelOutput(hidden, self.projection.as_called())

    def start(self, prompts: Tensor) -> PromptState:
        """The decoding state after prompts of equal length.

        Args:
            prompts: token ids (B, L), L >= 0, processed in one pass.

        Returns:
            The state, with one hypothesis for each prompt.
        """
        state = PromptState(self.layers, prompts, self.ends, self.step_positions)
        if prompts.shape[1]:
            self._run(prompts, state)
        return state

    def prefill(self, inputs: Tensor, lengths: Tensor | None = None) -> tuple[PromptState, Tensor]:
        """Process prompts except for their last token.

        Args:
            inputs: token ids (B, L), L >= 1.
            lengths: None, or L for each prompt: prompts of different lengths need batches of their own.

        Returns:
            The state, with one hypothesis for each prompt; and the last token of each, (B,), for the first `step`.

        Raises:
            ShapeError: prompts of different lengths.
        """
        check_texts(inputs, lengths)
        if lengths is not None and bool((lengths != inputs.shape[1]).any()):
            others = lengths[lengths != inputs.shape[1]].tolist()
            raise ShapeError(
                f"lengths has {others[:8]}; expected prompts of equal length in a batch, {inputs.shape[1]} tokens"
            )
        return self.start(inputs[:, :-1]), inputs[:, -1]

    def step(self, tokens: Tensor, state: PromptState) -> Tensor:
        """Append a token to each hypothesis (B, K), updating `state`, and return the logits of the next (B, K, N)."""
        output = state.step(tokens, logits=True)
        if output is not None and output.logits is not None:
            return output.logits
        return self.projection.logits(self.advance(tokens, state))

    def collate(self, sources: Sequence[Sequence[int]]) -> tuple[Tensor, None]:
        """Prompts of equal length as `inputs` (B, L); an empty prompt becomes `bos`."""
        return torch.tensor([list(source) or [self.vocabulary.bos] for source in sources]), None

    def advance(self, tokens: Tensor, state: PromptState) -> Tensor:
        """Append a token to each hypothesis (B, K), updating `state`, and return the hidden states (B, K, D)."""
        output = state.step(tokens, logits=False)
        if output is not None:
            return output.hidden
        hidden = self._run(state.slots.to_cache_order(tokens).flatten()[:, None], state)
        return state.slots.from_cache_order(hidden.view(*tokens.shape, hidden.shape[-1]))

    def _run(self, tokens: Tensor, state: PromptState) -> Tensor:
        """The hidden states (rows, L, D) of further tokens (rows, L) in cache order; updates `state`."""
        x = self.embed(tokens, state.length)
        for step, cache in zip(state.steps, state.past, strict=True):
            x = step(x, cache)
        state.length += tokens.shape[1]
        hidden: Tensor = self.norm(x)
        return hidden
