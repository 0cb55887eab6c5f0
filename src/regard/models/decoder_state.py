"""Decoding state of Transformer decoders: KV caches of self- and cross-attention."""

from typing import final

import torch
from torch import Tensor, nn

from regard.attention.cache import KeyValueCache
from regard.attention.patterns.sequence_pattern import KeyLengths
from regard.layers.step import DecoderStep, decoder_step
from regard.models.cache_slots import CacheSlots
from regard.models.seq2seq import Memory, State


@final
class DecoderState(State):
    """KV caches of each layer, of the target tokens so far and of the source; both in the order of `slots`.

    Args:
        decoder: `DecoderLayer` modules.
        memory: of the sources.
    """

    def __init__(self, decoder: nn.ModuleList, memory: Memory) -> None:
        self.steps: list[DecoderStep] = [decoder_step(layer) for layer in decoder]
        self.past = [KeyValueCache.for_pattern(layer.self_attention.pattern) for layer in decoder]
        packing = memory.packing(decoder)
        states, taken = (memory.states, None) if packing is None else (packing.pack(memory.states), packing.taken)
        self.memory: list[KeyValueCache] = [layer.remember(states, taken) for layer in decoder]
        self.pattern = memory.pattern  # hides the padding of sources
        self.slots = CacheSlots(len(memory.states), memory.states.device)
        self.length = 0
        self.positions = torch.empty(0)  # position embeddings of the next steps, if the model adds some

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
