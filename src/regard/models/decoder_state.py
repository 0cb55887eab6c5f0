"""Decoding state of Transformer decoders: KV caches of self- and cross-attention."""

from typing import final

from torch import Tensor, nn

from regard.attention.cache import KeyValueCache
from regard.attention.patterns.sequence_pattern import KeyLengths
from regard.layers.decoder_stack import DecoderEnds, StepOutput, decoder_stack
from regard.layers.step import DecoderStep, decoder_step
from regard.models.cache_slots import CacheSlots
from regard.models.seq2seq import Memory, State
from regard.models.step_positions import StepPositions


@final
class DecoderState(State):
    """KV caches of each layer, of the target tokens so far and of the source; both in the order of `slots`.

    Args:
        decoder: `DecoderLayer` modules.
        memory: of the sources.
        ends: what the decoder computes before and after its layers, for a step in one native call; None for none.
        positions: position embeddings of the target, if there are some.
    """

    def __init__(
        self,
        decoder: nn.ModuleList,
        memory: Memory,
        ends: DecoderEnds | None = None,
        positions: StepPositions | None = None,
    ) -> None:
        self.steps: list[DecoderStep] = [decoder_step(layer) for layer in decoder]
        self.stack = None if ends is None else decoder_stack(self.steps, ends)
        self.past = [KeyValueCache.for_pattern(layer.self_attention.pattern) for layer in decoder]
        packing = memory.packing(decoder)
        states, taken = (memory.states, None) if packing is None else (packing.pack(memory.states), packing.taken)
        self.memory: list[KeyValueCache] = [layer.remember(states, taken) for layer in decoder]
        self.pattern = memory.pattern  # hides the padding of sources
        self.slots = CacheSlots(len(memory.states), memory.states.device)
        self.length = 0
        self._positions = positions

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

    def rewind(self) -> None:
        """Go back to the start of the target, before hypotheses have parted; what is known of the source stays."""
        self.past = [KeyValueCache(cache.lookback) for cache in self.past]
        self.length = 0

    def reorder(self, parents: Tensor) -> None:
        self.slots.reorder(parents, self.past)

    def keep(self, sentences: Tensor) -> None:
        moves = self.slots.keep(sentences, self.past, self.memory)
        if isinstance(self.pattern, KeyLengths):
            lengths = self.pattern.lengths
            self.pattern = KeyLengths(lengths.index_copy(0, moves.targets, lengths[moves.sources])[: len(sentences)])
