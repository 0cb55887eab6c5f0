"""Where hypotheses stand in caches of keys and values, which have an order of their own, so that little is copied."""

from collections.abc import Sequence
from typing import NamedTuple, final

import torch
from torch import Tensor

from regard.attention.cache import KeyValueCache


class Moves(NamedTuple):
    """Sentences that were written over others when those were done: (N,) each, by place."""

    sources: Tensor
    targets: Tensor


@final
class CacheSlots:
    """The places of K hypotheses of each of B sentences in caches of B K sequences, one hypothesis each at first.

    The first child of a parent stays in its place, others are written over hypotheses that have no child; the last
    sentences move to the places of those that are done. The hypotheses of a sentence stand together.

    Args:
        batch: B.
        device: of the caches.
    """

    def __init__(self, batch: int, device: torch.device) -> None:
        self._rows = torch.arange(batch, device=device)[:, None]  # (B, K): the place of each hypothesis
        self._held: Tensor | None = None  # (B K,): the hypothesis in each place; None where all are in order

    def reorder(self, parents: Tensor, past: Sequence[KeyValueCache]) -> None:
        """Go on from other hypotheses, as `State.reorder`."""
        taken, count = self._rows.gather(1, parents), parents.shape[1]
        if count != self._rows.shape[1]:
            sentences = self._rows[:, 0] // self._rows.shape[1]  # by their places
            for cache in past:
                cache.select(taken[sentences.argsort()].flatten())
            self._stand(sentences[:, None] * count + torch.arange(count, device=parents.device))
            return
        # (B, K): those whose parent has an earlier child, and the parents that have none; of each as many.
        later = (parents[:, :, None] == parents[:, None]).tril(-1).any(2)
        childless = torch.ones_like(later).scatter_(1, parents, False)
        free = self._rows[childless]
        for cache in past:
            cache.overwrite(free, taken[later])
        self._stand(taken.masked_scatter(later, free))

    def keep(self, sentences: Tensor, past: Sequence[KeyValueCache], memory: Sequence[KeyValueCache] = ()) -> Moves:
        """Go on with some of the sentences, as `State.keep`: in `past`, and in `memory`, B sequences each.

        Returns:
            What else is kept by the places of the sentences has to be moved so, and cut to as many.
        """
        rows, batch, count = self._rows[sentences], len(sentences), self._rows.shape[1]
        places = rows[:, 0] // count
        stray = places >= batch
        targets = torch.ones_like(stray).index_fill_(0, places[~stray], False).nonzero()[:, 0]
        sources = places[stray]
        for cache in memory:
            cache.overwrite(targets, sources, first=batch)
        within = torch.arange(count, device=rows.device)
        written, read = ((x[:, None] * count + within).flatten() for x in (targets, sources))
        for cache in past:
            cache.overwrite(written, read, first=batch * count)
        rows[stray] += ((targets - sources) * count)[:, None]
        self._stand(rows)
        return Moves(sources, targets)

    def inward(self, tokens: Tensor) -> Tensor:
        """What belongs to hypotheses (B, K, ...), in the order of the caches."""
        return tokens if self._held is None else tokens.flatten(0, 1)[self._held].view(tokens.shape)

    def outward(self, features: Tensor) -> Tensor:
        """What stands in the order of the caches (B, K, ...), by hypotheses again."""
        return features if self._held is None else features.flatten(0, 1)[self._rows.flatten()].view(features.shape)

    def _stand(self, rows: Tensor) -> None:
        self._rows, flat = rows, rows.flatten()
        ordered = torch.arange(len(flat), device=flat.device)
        self._held = None if torch.equal(flat, ordered) else ordered.scatter(0, flat, ordered)
