"""A dilated window as plain windows over positions that leave the same rest."""

import pytest
import torch

import regard as rg
from regard.attention.backends.native import mask
from regard.attention.backends.native.mask import ALL, native_parts
from regard.attention.engine.call import Call
from regard.attention.patterns.pattern import Pattern, positions

DILATED = rg.Dilated(3, left=2, right=1)


@pytest.fixture(autouse=True)
def _small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mask, "MIN_PART", 1)


def call(pattern: Pattern, rows: int, columns: int, query_start: int = 0, key_start: int = 0, **values) -> Call:
    query, key = torch.zeros(1, 1, rows, 2), torch.zeros(1, 1, columns, 2)
    return rg.plan(
        query, key, key, pattern=pattern, query_start=query_start, key_start=key_start, backend="native", **values
    ).call


@pytest.mark.parametrize("rows", [3, 4, 11, 17])
@pytest.mark.parametrize("columns", [3, 7, 19])
@pytest.mark.parametrize(("query_start", "key_start"), [(0, 0), (5, 0), (0, 4), (13, 2)])
@pytest.mark.parametrize(
    "pattern",
    [
        DILATED,
        rg.Dilated(2),
        rg.Causal() & DILATED,
        rg.SlidingWindow(left=4, right=5) & rg.Dilated(2, left=None, right=7),
        rg.Full() & rg.Dilated(3, left=5) & rg.SlidingWindow(right=2),
    ],
    ids=str,
)
def test_the_parts_see_what_the_whole_sees(pattern, rows, columns, query_start, key_start) -> None:
    parts = native_parts(call(pattern, rows, columns, query_start, key_start))
    assert len(parts) == (2 if "dilation=2" in repr(pattern) or "Dilated(2" in str(pattern) else 3)
    visible = torch.zeros(rows, columns, dtype=torch.bool)
    for part in parts:
        row, column = torch.arange(rows)[part.rows], torch.arange(columns)[part.columns]
        distance = torch.arange(len(column)) - torch.arange(len(row))[:, None] - part.mask.start
        visible[row[:, None], column] = (part.mask.min_offset <= distance) & (distance <= part.mask.max_offset)
    query_BL, key_S = positions(rows, columns, query_start, key_start, torch.device("cpu"))
    assert torch.equal(visible, pattern.visible(query_BL, key_S)[0, 0])


def test_what_goes_by_the_numbers_of_rows_and_columns_stays_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    center = torch.zeros(1, 1, 9)
    for values in (
        {"bias": rg.ALiBi(torch.ones(1))},
        {"dropout": 0.1, "seed": 3},
        {"normalizer": rg.Softmax(prior=rg.Gaussian(center=center, sigma=1.0))},
    ):
        assert [part.rows for part in native_parts(call(DILATED, 9, 9, **values))] == [ALL]
    for pattern in (~DILATED, DILATED | rg.Causal(), DILATED & rg.KeyLengths(torch.tensor([4])), rg.Causal()):
        assert [part.rows for part in native_parts(call(pattern, 9, 9))] == [ALL]
    assert [part.rows for part in native_parts(call(DILATED, 2, 9, 7))] == [ALL]
    monkeypatch.setattr(mask, "MIN_PART", 4)
    assert len(native_parts(call(DILATED, 12, 12))) == 3
    assert len(native_parts(call(DILATED, 12, 11))) == 1


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("kind", ["sink", "alpha", "offset", "vector"])
def test_forward_and_backward_over_many_tiles(kind: str, dtype: torch.dtype) -> None:
    """The gradients of what the parts share, too."""
    torch.manual_seed(0)
    pattern = rg.Causal() & rg.Dilated(4, left=21)
    shapes = {"query": (1, 2, 301, 16), "key": (1, 1, 301, 16), "value": (1, 1, 301, 16)}
    drawn = {name: torch.randn(shape).to(dtype).double() for name, shape in shapes.items()}
    drawn["shared"] = torch.rand(16 if kind == "vector" else 2) + (1.2 if kind == "alpha" else 0.0)
    weights = torch.randn(1, 2, 301, 16).to(dtype).double()

    def outcome(backend: str, dtype: torch.dtype) -> tuple[torch.Tensor, ...]:
        wide = torch.promote_types(dtype, torch.float32)
        leaves = {n: x.to(wide if n == "shared" else dtype).requires_grad_() for n, x in drawn.items()}
        shared = leaves["shared"]
        values = {
            "sink": lambda: {"normalizer": rg.Softmax(sink=shared)},
            "alpha": lambda: {"normalizer": rg.Entmax(shared)},
            "offset": lambda: {"normalizer": rg.Sigmoid(shared)},
            "vector": lambda: {"score": rg.Additive(shared)},
        }[kind]()
        query, key, value = (leaves[name] for name in shapes)
        found = rg.attend(query, key, value, pattern=pattern, backend=backend, **values)
        return found, *torch.autograd.grad(found, list(leaves.values()), weights.to(found.dtype))

    error = 1e-4 if dtype == torch.float32 else 5e-2
    for mine, right in zip(outcome("native", dtype), outcome("reference", torch.float64), strict=True):
        assert (mine.double() - right).abs().max() < error * (1 + right.abs().max())
