"""Caches in an order of their own hold what each hypothesis would hold by itself."""

import pytest
import torch
from torch import Tensor

from regard.attention.cache import KeyValueCache
from regard.models.cache_slots import CacheSlots

BATCH, LAYERS = 7, 2


def filled(x: Tensor) -> KeyValueCache:
    """Keys (B, 1, S, 1) that are these numbers (B, S), and values that are their opposites."""
    cache = KeyValueCache()
    cache.append(x[:, None, :, None], -x[:, None, :, None])
    return cache


@pytest.mark.parametrize("hypotheses", [1, 2, 3, 5])
@pytest.mark.parametrize("seed", range(4))
def test_they_hold_what_a_copy_of_each_would(seed: int, hypotheses: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    sources, tokens = torch.rand(BATCH, 3, generator=generator), torch.rand(BATCH, 1, 2, generator=generator)
    memory = [filled(sources + i) for i in range(LAYERS)]
    past = [filled(tokens[:, 0] + i) for i in range(LAYERS)]
    slots, lengths, expected_lengths = CacheSlots(BATCH, torch.device("cpu")), torch.arange(BATCH), torch.arange(BATCH)
    for _ in range(9):
        batch, count = tokens.shape[:2]
        parents = torch.randint(count, (batch, hypotheses), generator=generator)
        slots.reorder(parents, past)
        tokens = tokens.gather(1, parents[:, :, None].expand(-1, -1, tokens.shape[2]))
        rows = (torch.rand(batch, generator=generator) < 0.8).nonzero()[:, 0]
        if 0 < len(rows) < batch:
            moves = slots.keep(rows, past, memory)
            lengths = lengths.index_copy(0, moves.targets, lengths[moves.sources])[: len(rows)]
            tokens, sources, expected_lengths = tokens[rows], sources[rows], expected_lengths[rows]
        new = torch.rand(len(tokens), hypotheses, generator=generator)
        in_slots = slots.to_cache_order(new)
        assert torch.equal(slots.from_cache_order(in_slots), new)
        for i, cache in enumerate(past):
            cache.append(in_slots.flatten()[:, None, None, None] + i, -in_slots.flatten()[:, None, None, None] - i)
        tokens = torch.cat((tokens, new[:, :, None]), 2)

        in_order = torch.arange(hypotheses).expand(len(tokens), -1)
        order = slots.from_cache_order(
            torch.arange(len(tokens))[:, None].expand(-1, hypotheses)
        )  # the place of each sentence
        assert torch.equal(order, order[:, :1].expand_as(in_order))
        assert torch.equal(lengths[order[:, 0]], expected_lengths)
        for i in range(LAYERS):
            keys, values, start = past[i].contents
            assert start == 0
            cached = keys[:, 0, :, 0].view(len(tokens), hypotheses, -1).movedim(2, 0)
            assert torch.equal(torch.stack([slots.from_cache_order(x) for x in cached], 2), tokens + i)
            assert torch.equal(values, -keys)
            assert torch.equal(memory[i].contents[0][order[:, 0], 0, :, 0], sources + i)


def test_the_first_child_is_not_copied() -> None:
    slots, cache = CacheSlots(2, torch.device("cpu")), filled(torch.arange(2.0)[:, None])
    slots.reorder(torch.zeros(2, 3, dtype=torch.int64), [cache])
    before = cache.contents[0]
    cache.append(torch.arange(6.0).view(6, 1, 1, 1), torch.zeros(6, 1, 1, 1))
    slots.reorder(torch.tensor([[1, 0, 2], [0, 0, 1]]), [cache])
    assert cache.contents[0].data_ptr() == before.data_ptr()
    assert cache.contents[0][:, 0, 1, 0].tolist() == [0, 1, 2, 3, 4, 3]
    x = torch.tensor([[1.0, 0.0, 2.0], [3.0, 3.5, 4.0]])
    assert slots.to_cache_order(x).tolist() == [[0, 1, 2], [3, 4, 3.5]]
