"""Decoding states of Transformers: KV caches of all layers, and their steps."""

from collections.abc import Sequence
from typing import Any, final

from torch import Tensor, nn

from regard.attention.cache import KeyValueCache
from regard.attention.patterns.pattern import Full, Pattern
from regard.attention.patterns.sequence_pattern import KeyLengths
from regard.layers.decoder_stack import DecoderEnds, StepOutput, decoder_stack
from regard.layers.step import decoder_step
from regard.models.cache_slots import CacheSlots
from regard.models.seq2seq import Memory, State
from regard.models.step_positions import StepPositions


class StackState(State):
    """KV caches of the self-attention of all layers, in the order of `slots`.

    Args:
        layers: with `self_attention`.
        steps: of each layer, from `decoder_step` or `causal_step`.
        slots: of the sequences in the caches.
        ends: what stands before and after the layers, for a step in one native call; None for none.
        positions: position embeddings of decoding steps; None if the model adds none.
    """

    memory: Sequence[KeyValueCache] = ()  # of cross-attention, by layer
    pattern: Pattern = Full()  # of cross-attention

    def __init__(
        self,
        layers: nn.ModuleList,
        steps: Sequence[Any],
        slots: CacheSlots,
        ends: DecoderEnds | None,
        positions: StepPositions | None,
    ) -> None:
        self.steps, self.slots, self.ends, self._positions = steps, slots, ends, positions
        self.stack = None if ends is None else decoder_stack(steps, ends)
        self.past = [KeyValueCache.for_pattern(layer.self_attention.pattern) for layer in layers]
        self.length = 0

    def position(self, like: Tensor) -> Tensor | None:
        """The position embedding (D,) of the next token in the dtype and on the device of `like`; None for none."""
        return None if self._positions is None else self._positions.at(self.length, like)

    def step(self, tokens: Tensor, *, logits: bool) -> StepOutput | None:
        """Append a token to each hypothesis (B, K) in one native call; None if the layers' own steps must be taken.

        Args:
            tokens: (B, K).
            logits: whether logits are wanted.
        """
        if self.stack is None:
            return None
        position = self.position(self.stack.like)
        output = self.stack.step(
            tokens, self.slots.moved, self.past, self.memory, self.pattern, position, logits=logits
        )
        self.length += output is not None
        return output

    def reorder(self, parents: Tensor) -> None:
        self.slots.reorder(parents, self.past)


@final
class DecoderState(StackState):
    """KV caches of a decoder: of the target tokens so far and of the source, both in the order of `slots`.

    Args:
        decoder: `DecoderLayer` modules.
        memory: of the sources.
        ends: as for `StackState`; `hidden` and `logits` need them.
        positions: as for `StackState`.
    """

    def __init__(
        self,
        decoder: nn.ModuleList,
        memory: Memory,
        ends: DecoderEnds | None = None,
        positions: StepPositions | None = None,
    ) -> None:
        slots = CacheSlots(len(memory.states), memory.states.device)
        super().__init__(decoder, [decoder_step(layer) for layer in decoder], slots, ends, positions)
        packing = memory.packing(decoder)
        states, taken = (memory.states, None) if packing is None else (packing.pack(memory.states), packing.taken)
        self.memory: list[KeyValueCache] = [layer.remember(states, taken) for layer in decoder]
        self.pattern = memory.pattern  # hides the padding of sources

    def hidden(self, tokens: Tensor) -> Tensor:
        """Append a token to each hypothesis (B, K), and return the hidden states (B, K, D)."""
        output = self.step(tokens, logits=False)
        if output is not None:
            return output.hidden
        embedding, factor, dropout, norm, _ = self.ends  # type: ignore[misc]
        x = embedding(self.slots.to_cache_order(tokens))
        x = x if factor == 1 else x * factor
        position = self.position(x)
        x = dropout(x if position is None else x + position)
        for step, past, memory in zip(self.steps, self.past, self.memory, strict=True):
            x = step(x, past, memory, self.pattern)
        self.length += 1
        hidden: Tensor = norm(self.slots.from_cache_order(x))
        return hidden

    def logits(self, tokens: Tensor) -> Tensor:
        """Append a token to each hypothesis (B, K), and return the logits of the next (B, K, N)."""
        output = self.step(tokens, logits=True)
        if output is not None and output.logits is not None:
            return output.logits
        return self.ends.projection.logits(self.hidden(tokens))  # type: ignore[union-attr]

    def rewind(self) -> None:
        """Go back to the start of the target, before hypotheses have parted; the source's caches stay."""
        self.past = [KeyValueCache(cache.lookback) for cache in self.past]
        self.length = 0

    def keep(self, sentences: Tensor) -> None:
        moves = self.slots.keep(sentences, self.past, self.memory)
        if isinstance(self.pattern, KeyLengths):
            lengths = self.pattern.lengths
            self.pattern = KeyLengths(lengths.index_copy(0, moves.targets, lengths[moves.sources])[: len(sentences)])
