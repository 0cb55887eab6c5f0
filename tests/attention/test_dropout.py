"""Dropout: the rate, the scale, and the same entries whatever the tiles, the backend or the batch."""

import math

import pytest
import torch
from torch import Tensor

import regard as rg
from regard.attention.dropout import keep_scale
from regard.attention.engine import tiling

SEED = torch.tensor(7)


def whole(p: float, batch: int = 2, heads: int = 3, rows: int = 40, columns: int = 50, seed: Tensor = SEED) -> Tensor:
    return keep_scale(p, seed, batch, heads, slice(0, rows), slice(0, columns), torch.float64)


@pytest.mark.parametrize("p", [0.0, 0.1, 0.5, 0.9])
def test_rate_and_scale(p: float) -> None:
    found = whole(p, 4, 4, 200, 250)
    assert set(found.unique().tolist()) <= {0.0, 1 / (1 - p)}
    deviation = math.sqrt(p * (1 - p) / found.numel())
    assert abs(float((found == 0).double().mean()) - p) <= 5 * deviation


def test_each_row_column_head_and_sequence_is_dropped_by_itself() -> None:
    dropped = (whole(0.5, 4, 4, 128, 128) == 0).double()
    for dim in range(4):  # no two neighbors along any axis agree more often than chance
        rolled = dropped.roll(1, dim)
        assert abs(float((dropped == rolled).double().mean()) - 0.5) <= 5 * 0.5 / math.sqrt(dropped.numel())
        rest = tuple(d for d in range(4) if d != dim)
        deviation = 0.5 / math.sqrt(dropped.numel() / dropped.shape[dim])
        assert float((dropped.mean(rest) - 0.5).abs().max()) <= 6 * deviation


def test_any_tile_is_a_part_of_the_whole() -> None:
    found = whole(0.3)
    for rows, columns in ((slice(0, 1), slice(0, 1)), (slice(7, 19), slice(31, 50)), (slice(39, 40), slice(0, 50))):
        assert torch.equal(keep_scale(0.3, SEED, 2, 3, rows, columns, torch.float64), found[:, :, rows, columns])
    assert torch.equal(whole(0.3, batch=1), found[:1])
    assert torch.equal(whole(0.3, heads=2), found[:, :2])


def test_both_halves_of_the_seed_count() -> None:
    seeds = [0, 1, -1, 2**32, 2**62, -(2**63), 2**63 - 1]
    masks = [whole(0.5, seed=torch.tensor(seed)) for seed in seeds]
    assert all(not torch.equal(a, b) for i, a in enumerate(masks) for b in masks[:i])


def inputs() -> list[Tensor]:
    generator = torch.Generator().manual_seed(3)
    return [torch.randn(2, 4, 40, 8, generator=generator, dtype=torch.float64) for _ in range(3)]


def test_a_seed_says_what_is_dropped_everywhere(monkeypatch: pytest.MonkeyPatch) -> None:
    arguments = {"dropout": 0.4, "pattern": rg.Causal(), "summary": rg.Summary(weights=True)}
    first, result = rg.attend(*inputs(), **arguments, seed=5, backend="reference")
    again, _ = rg.attend(*inputs(), **arguments, seed=torch.tensor([5]), backend="reference")
    assert torch.equal(first, again)
    kept = result.weights * keep_scale(0.4, torch.tensor(5), 2, 4, slice(0, 40), slice(0, 40), torch.float64)
    torch.testing.assert_close(first, kept @ inputs()[2], rtol=1e-12, atol=1e-12)
    for tile in (1, 200, 5000):
        monkeypatch.setattr(tiling, "TILE", 8 * tile)
        tiled, seen_tiled = rg.attend(*inputs(), **arguments, seed=5, backend="chunked")
        torch.testing.assert_close(tiled, first, rtol=1e-12, atol=1e-12)
        torch.testing.assert_close(seen_tiled.weights, result.weights, rtol=1e-12, atol=1e-12)  # before dropout
    other, _ = rg.attend(*inputs(), **arguments, seed=6, backend="reference")
    assert not torch.equal(first, other)


@pytest.mark.parametrize("backend", ["reference", "chunked", "auto"])
def test_the_default_seed_follows_torch(backend: str) -> None:
    def compute() -> Tensor:
        return rg.attend(*inputs(), dropout=0.4, backend=backend)

    torch.manual_seed(11)
    first, second = compute(), compute()
    torch.manual_seed(11)
    assert torch.equal(compute(), first)
    assert not torch.equal(first, second)


def test_without_dropout_no_random_number_is_drawn() -> None:
    before = torch.get_rng_state()
    rg.attend(*inputs(), dropout=0.0)
    assert torch.equal(torch.get_rng_state(), before)


def test_the_mean_over_seeds_is_the_output_without() -> None:
    query, key, value = (x[:1, :1, :5] for x in inputs())
    outputs = torch.stack([rg.attend(query, key, value, dropout=0.5, seed=i) for i in range(500)])
    standard_error = outputs.std(0) / math.sqrt(len(outputs))
    off = (outputs.mean(0) - rg.attend(query, key, value)).abs() / standard_error
    assert float(off.max()) < 5
