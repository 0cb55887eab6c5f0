"""Whole sequence, prompt and step by step give the same, and a window's cache does not grow with the length."""

import pytest
import torch
from torch import Tensor

import regard as rg
from regard.attention.patterns.pattern import Pattern

BATCH, HEADS, GROUPS, LENGTH, HEAD_DIM, VALUE_DIM = 2, 6, 3, 29, 5, 7
CAUSAL = rg.Causal()
PATTERNS = {
    "causal": CAUSAL,
    "window": CAUSAL & rg.SlidingWindow(left=4),
    "window of its own key": CAUSAL & rg.SlidingWindow(left=0),
    "dilated": CAUSAL & rg.Dilated(dilation=3, left=2),
    "either": CAUSAL & (rg.SlidingWindow(left=2) | rg.Dilated(dilation=2, left=4)),
    "strided": CAUSAL & (rg.Strided(5) | rg.SlidingWindow(left=3)),
    "global": CAUSAL & (rg.SlidingWindow(left=3) | rg.GlobalTokens([0, 2])),
    "lengths": CAUSAL & rg.SlidingWindow(left=6) & rg.KeyLengths(torch.tensor([29, 11])),
}
STEPS = {
    "whole": [29],
    "one by one": [1] * 29,
    "prompt and steps": [17] + [1] * 12,
    "prompts": [3, 11, 1, 1, 8, 5],
}


def inputs() -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)

    def draw(heads: int, dim: int) -> Tensor:
        return torch.randn(BATCH, heads, LENGTH, dim, generator=generator, dtype=torch.float64)

    return draw(HEADS, HEAD_DIM), draw(GROUPS, HEAD_DIM), draw(GROUPS, VALUE_DIM)


def in_steps(cache: rg.KeyValueCache, steps: list[int], pattern: Pattern, backend: str) -> Tensor:
    pieces = zip(*(x.split(steps, dim=2) for x in inputs()), strict=True)
    outputs = []
    for q, k, v in pieces:
        keys, values, key_start = cache.append(k, v)
        outputs.append(rg.attend(q, keys, values, pattern=pattern, key_start=key_start, backend=backend))
    return torch.cat(outputs, dim=2)


@pytest.mark.parametrize("backend", ["reference", "chunked", "sdpa"])
@pytest.mark.parametrize("steps", STEPS.values(), ids=STEPS.keys())
@pytest.mark.parametrize("pattern", PATTERNS.values(), ids=PATTERNS.keys())
def test_steps_are_the_whole_sequence(pattern: Pattern, steps: list[int], backend: str) -> None:
    whole = rg.attend(*inputs(), pattern=pattern, backend="reference")
    for cache in (rg.KeyValueCache.for_pattern(pattern), rg.KeyValueCache()):
        output = in_steps(cache, steps, pattern, backend)
        torch.testing.assert_close(output, whole, rtol=0, atol=1e-12)
        assert cache.length == LENGTH


def test_the_pattern_bounds_what_is_kept() -> None:
    bounds = {name: rg.KeyValueCache.for_pattern(pattern).lookback for name, pattern in PATTERNS.items()}
    assert bounds == {
        "causal": None,
        "window": 4,
        "window of its own key": 0,
        "dilated": 6,
        "either": 8,
        "strided": None,
        "global": None,
        "lengths": 6,
    }


def test_a_window_gives_the_keys_that_a_query_may_see() -> None:
    cache = rg.KeyValueCache(lookback=4)
    where = torch.arange(300.0).reshape(1, 1, 300, 1)
    seen = 0
    for new in [1, 2, 3, 100, 1, 1, 50, 5, 80, 1, 56]:
        part = where[:, :, seen : seen + new]
        keys, values, key_start = cache.append(part, -part)
        assert keys.flatten().tolist() == list(range(max(0, seen - 4), seen + new))
        assert torch.equal(values, -keys)
        assert key_start == max(0, seen - 4)
        seen += new
    assert seen == 300


def test_memory_follows_the_window_and_not_the_length() -> None:
    """Two buffers of at most 2 x 128 positions, 3 heads of 8 float32, whatever was appended."""
    cache, most = rg.KeyValueCache(lookback=128), 0
    for new in [1] * 1000 + [5000] + [1] * 1000 + [7] * 1000:
        x = torch.zeros(1, 3, new, 8)
        cache.append(x, x)
        most = max(most, cache.bytes)
    assert cache.length == 14_000
    assert most == 2 * 256 * 3 * 8 * 4


def test_a_dense_cache_doubles() -> None:
    """So that a position is copied about once, however long it gets."""
    cache, moves, last = rg.KeyValueCache(), 0, 0
    x = torch.zeros(1, 1, 1, 1)
    for _ in range(5000):
        cache.append(x, x)
        moves += cache.bytes != last
        last = cache.bytes
    assert moves <= 8
    assert cache.bytes <= 2 * 4 * 2 * 5000


def test_a_capacity_is_made_room_for_at_once() -> None:
    cache = rg.KeyValueCache(capacity=1000)
    x = torch.zeros(1, 1, 1, 4)
    for _ in range(1000):
        cache.append(x, x)
        assert cache.bytes == 2 * 1000 * 4 * 4
    cache.append(x, x)
    assert cache.bytes == 2 * 2000 * 4 * 4


def test_an_empty_cache_holds_nothing() -> None:
    cache = rg.KeyValueCache()
    cache.select(torch.tensor([0]))
    assert (cache.length, cache.bytes) == (0, 0)


@pytest.mark.parametrize("lookback", [None, 3])
def test_what_was_given_out_stays(lookback: int | None) -> None:
    cache = rg.KeyValueCache(lookback)
    where = torch.arange(400.0).reshape(1, 1, 400, 1)
    given = [cache.append(part, part)[0] for part in where.split(1, dim=2)]
    copies = [torch.arange(max(0, i - 3) if lookback else 0, i + 1.0) for i in range(400)]
    assert all(torch.equal(x.flatten(), copy) for x, copy in zip(given, copies, strict=True))


def test_nothing_new_gives_what_is_kept() -> None:
    """As cross attention does, whose memory is there from the start."""
    cache = rg.KeyValueCache()
    x = torch.randn(2, 1, 5, 3)
    cache.append(x, x)
    keys, values, key_start = cache.append(x[:, :, :0], x[:, :, :0])
    assert torch.equal(keys, x)
    assert torch.equal(values, x)
    assert (key_start, cache.length) == (0, 5)


@pytest.mark.parametrize("lookback", [None, 3])
@pytest.mark.parametrize("rows", [[2, 0, 0, 1, 2], [1], [True, False, True]], ids=str)
def test_selected_sequences_go_on(rows: list[int], lookback: int | None) -> None:
    cache = rg.KeyValueCache(lookback)
    x, y = torch.randn(3, 2, 100, 5), torch.randn(3, 2, 4, 5)
    cache.append(x, -x)
    cache.select(torch.tensor(rows))
    keys, values, key_start = cache.append(y[torch.tensor(rows)], -y[torch.tensor(rows)])
    assert torch.equal(keys, torch.cat([x, y], dim=2)[torch.tensor(rows)][:, :, key_start:])
    assert torch.equal(values, -keys)


def test_modes_may_change_between_steps() -> None:
    """What was written under inference mode can be added to without it, and back."""
    cache = rg.KeyValueCache()
    x = torch.randn(2, 1, 3, 4, requires_grad=True)
    with torch.inference_mode():
        cache.append(torch.ones(2, 1, 3, 4), torch.ones(2, 1, 3, 4))
        cache.select(torch.tensor([1, 0]))
    keys, _, _ = cache.append(x, x)
    assert not keys.requires_grad
    with torch.inference_mode():
        cache.append(x, x)
    assert cache.length == 9


@pytest.mark.parametrize("lookback", [None, 3])
def test_overwriting_is_selecting_in_place(lookback: int | None) -> None:
    generator = torch.Generator().manual_seed(0)
    one, two = rg.KeyValueCache(lookback), rg.KeyValueCache(lookback)
    for length in (5, 1, 1):
        new = torch.randn(23, 2, length, 3, generator=generator)
        for cache in (one, two):
            cache.append(new, -new)
    rows = torch.randperm(23, generator=generator)
    written, read = rows[:11], rows[11:22]
    where = torch.arange(23).index_copy(0, written, read)[:19]
    address = one.contents[0].data_ptr()
    one.overwrite(written, read, first=19)
    two.select(where)
    assert one.contents[0].data_ptr() == address
    for found, expected in zip(one.contents, two.contents, strict=True):
        assert found == expected if isinstance(found, int) else torch.equal(found, expected)
    new = torch.randn(19, 2, 1, 3, generator=generator)
    for found, expected in zip(one.append(new, new), two.append(new, new), strict=True):
        assert found == expected if isinstance(found, int) else torch.equal(found, expected)


def test_overwriting_nothing_kept() -> None:
    cache = rg.KeyValueCache()
    cache.overwrite(torch.tensor([0]), torch.tensor([1]))
    assert cache.length == 0


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("lookback", [None, 40])
def test_overwriting_many_sequences(lookback: int | None, dtype: torch.dtype) -> None:
    """Large copies go by the kernel: after each of some steps, what is kept is what was appended."""
    cache, kept = rg.KeyValueCache(lookback), torch.empty(90, 3, 0, 64, dtype=dtype)
    for step in range(5):
        new = torch.randn(len(kept), 20 if step == 0 else 1, 3, 64).to(dtype).transpose(1, 2)  # as projections give it
        cache.append(new, -new)
        kept = torch.cat([kept, new], 2)
        rows, others = torch.randperm(len(kept))[:60].view(2, 30)
        cache.overwrite(rows, others, first=len(kept) - step)
        kept[rows] = kept[others]
        kept = kept[: len(kept) - step]
        seen = kept if lookback is None else kept[:, :, -lookback:]
        assert torch.equal(cache.contents[0], seen)
        assert torch.equal(cache.contents[1], -seen)


def test_rows_that_are_not_there_are_not_read() -> None:
    cache = rg.KeyValueCache()
    cache.append(torch.zeros(90, 3, 20, 64), torch.zeros(90, 3, 20, 64))
    with pytest.raises(IndexError):
        cache.overwrite(torch.arange(30), torch.arange(70, 100))
