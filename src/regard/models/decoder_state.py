"""What decoders of layers keep between steps: the Transformer's and T5's."""

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
    """Keys and values of the tokens so far, a cache a layer, and those of the source; both in the order of `places`.

    Args:
        decoder: its layers, each a `DecoderLayer`.
        memory: of the sources.
    """

    def __init__(self, decoder: nn.ModuleList, memory: Memory) -> None:
        self.steps: list[DecoderStep] = [decoder_step(layer) for layer in decoder]
        self.past = [KeyValueCache.for_pattern(layer.self_attention.pattern) for layer in decoder]
        packing = memory.packing(decoder)
        states, taken = (memory.states, None) if packing is None else (packing.pack(memory.states), packing.taken)
        self.memory: list[KeyValueCache] = [layer.remember(states, taken) for layer in decoder]
        self.pattern = memory.pattern  # which source positions are not padding
        self.places = CacheSlots(len(memory.states), memory.states.device)
        self.length = 0
        self.positions = torch.empty(0)  # what a model adds to the tokens of some steps, if it does

    def reorder(self, parents: Tensor) -> None:
        self.places.reorder(parents, self.past)

    def keep(self, sentences: Tensor) -> None:
        moves = self.places.keep(sentences, self.past, self.memory)
        if isinstance(self.pattern, KeyLengths):
            lengths = self.pattern.lengths
            self.pattern = KeyLengths(lengths.index_copy(0, moves.targets, lengths[moves.sources])[: len(sentences)])
