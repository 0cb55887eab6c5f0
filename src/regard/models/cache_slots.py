"""Slots of hypotheses in KV caches: reordering hypotheses copies only the caches that change."""

from collections.abc import Sequence
from typing import NamedTuple, final

import torch
from torch import Tensor

from regard.attention.cache import KeyValueCache, overwrite_all


class Moves(NamedTuple):
    """Sentences that were copied over finished ones: their old and new slots, (N,) each."""

    sources: Tensor
    targets: Tensor


@final
class CacheSlots:
    """The cache slots of K hypotheses of each of B sentences, one hypothesis each at first.

    Caches hold B K sequences. The first child of a hypothesis keeps its slot, further children are copied over
    hypotheses without a child; when sentences finish, the last ones are moved to their slots. The hypotheses of a
    sentence are adjacent.

    Args:
        batch: B.
        device: of the caches.
    """

    def __init__(self, batch: int, device: torch.device) -> None:
        self._slots = torch.arange(batch, device=device)[:, None]  # (B, K): the slot of each hypothesis
        self._order: Tensor | None = None  # (B K,): the hypothesis in each slot; None if they are in order

    @property
    def moved(self) -> Tensor | None:
        """The slot of each hypothesis, (B, K); None if they are in order."""
        return None if self._order is None else self._slots

    def reorder(self, parents: Tensor, past: Sequence[KeyValueCache]) -> None:
        """Replace hypotheses by their parents' continuations, as `State.reorder`."""
        parent_slots, count = self._slots.gather(1, parents), parents.shape[1]
        if count != self._slots.shape[1]:
            sentences = self._slots[:, 0] // self._slots.shape[1]  # the index of each in the caches
            for cache in past:
                cache.select(parent_slots[sentences.argsort()].flatten())
            self._set_slots(sentences[:, None] * count + torch.arange(count, device=parents.device))
            return
        # (B, K): further children of a parent, and hypotheses without a child; equally many.
        later = (parents[:, :, None] == parents[:, None]).tril(-1).any(2)
        childless = torch.ones_like(later).scatter_(1, parents, False)
        free = self._slots[childless]
        overwrite_all(past, free, parent_slots[later])
        self._set_slots(parent_slots.masked_scatter(later, free))

    def keep(self, sentences: Tensor, past: Sequence[KeyValueCache], memory: Sequence[KeyValueCache] = ()) -> Moves:
        """Keep some of the sentences, as `State.keep`, in `past` and in `memory`, caches of B sequences.

        Returns:
            The moves, which the caller applies to whatever else is stored in this order, before cutting it.
        """
        slots, batch, count = self._slots[sentences], len(sentences), self._slots.shape[1]
        indices = slots[:, 0] // count
        beyond = indices >= batch
        targets = torch.ones_like(beyond).index_fill_(0, indices[~beyond], False).nonzero()[:, 0]
        sources = indices[beyond]
        for cache in memory:
            cache.overwrite(targets, sources, first=batch)
        offsets = torch.arange(count, device=slots.device)
        target_slots, source_slots = ((x[:, None] * count + offsets).flatten() for x in (targets, sources))
        for cache in past:
            cache.overwrite(target_slots, source_slots, first=batch * count)
        slots[beyond] += ((targets - sources) * count)[:, None]
        self._set_slots(slots)
        return Moves(sources, targets)

    def to_cache_order(self, x: Tensor) -> Tensor:
        """A tensor (B, K, ...) in the order of hypotheses, reordered by cache slots."""
        return x if self._order is None else x.flatten(0, 1)[self._order].view(x.shape)

    def from_cache_order(self, x: Tensor) -> Tensor:
        """A tensor (B, K, ...) in the order of cache slots, reordered by hypotheses."""
        return x if self._order is None else x.flatten(0, 1)[self._slots.flatten()].view(x.shape)

    def _set_slots(self, slots: Tensor) -> None:
        self._slots, flat = slots, slots.flatten()
        in_order = torch.arange(len(flat), device=flat.device)
        self._order = None if torch.equal(flat, in_order) else in_order.scatter(0, flat, in_order)
