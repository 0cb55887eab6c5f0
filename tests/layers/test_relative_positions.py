"""Relative positions in two dimensions against loops over all pairs of cells, and on every backend."""

from functools import partial

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

import regard as rg
from regard.errors import ConfigError, ShapeError
from regard.layers.relative_positions import RelativeBias2d, RelativeKey2d, relative_positions

HEADS, SIZE, SPECIAL, BATCH = 3, 5, 2, 2
GRID = (2, 4)
LENGTH = SPECIAL + GRID[0] * GRID[1]
KINDS = ("relative-bias", "relative-key")


def module(kind: str, grid: tuple[int, int] = GRID) -> nn.Module:
    torch.manual_seed(0)
    positions = relative_positions(kind, HEADS, SIZE, grid).double()
    for parameter in positions.parameters():
        nn.init.normal_(parameter)
    return positions


def inputs(length: int = LENGTH) -> Tensor:
    return torch.randn(3, BATCH, HEADS, length, SIZE, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


def looped(positions: nn.Module, query: Tensor, grid: tuple[int, int], special: int) -> Tensor:
    """The bias (B, H, L, L), entry by entry, with tables for this grid or clipped ones."""
    bias = torch.zeros(BATCH, HEADS, query.shape[2], query.shape[2], dtype=query.dtype)
    cells = [(y, x) for y in range(grid[0]) for x in range(grid[1])]
    for i, (y, x) in enumerate(cells, special):
        for j, (v, u) in enumerate(cells, special):
            if isinstance(positions, RelativeBias2d):
                bias[:, :, i, j] = positions.table[:, v - y + grid[0] - 1, u - x + grid[1] - 1]
            else:
                far_row, far_column = len(positions.row_table) // 2, len(positions.column_table) // 2
                of_row = positions.row_table[max(-far_row, min(far_row, v - y)) + far_row]
                of_column = positions.column_table[max(-far_column, min(far_column, u - x)) + far_column]
                bias[:, :, i, j] = query[:, :, i] @ (of_row + of_column) / SIZE**0.5
    return bias


@pytest.mark.parametrize("special", [0, SPECIAL])
@pytest.mark.parametrize("kind", KINDS)
def test_values_are_those_of_a_loop(kind: str, special: int) -> None:
    positions, query = module(kind), inputs(special + 8)[0]
    bias = positions(query, GRID).tensor.expand(BATCH, -1, -1, -1)
    torch.testing.assert_close(bias, looped(positions, query, GRID, special))


def test_shaw_keys_are_what_is_added_to_the_keys() -> None:
    """The paper's form: q . (k + r) / sqrt(E)."""
    positions, (query, key, value) = module("relative-key"), inputs(8)
    rows, columns = torch.arange(8) // GRID[1], torch.arange(8) % GRID[1]
    of_row = positions.row_table[rows[None] - rows[:, None] + GRID[0] - 1]
    of_column = positions.column_table[columns[None] - columns[:, None] + GRID[1] - 1]
    scores = torch.einsum("bhle,bhlse->bhls", query, key[:, :, None] + of_row + of_column) / SIZE**0.5
    attended = rg.attend(query, key, value, bias=positions(query, GRID))
    torch.testing.assert_close(attended, scores.softmax(-1) @ value)


def test_offsets_beyond_the_tables_are_clipped() -> None:
    positions, query = module("relative-key"), inputs(SPECIAL + 18)[0]
    torch.testing.assert_close(positions(query, (3, 6)).tensor, looped(positions, query, (3, 6), SPECIAL))


def test_a_table_of_biases_is_interpolated() -> None:
    positions, query = module("relative-bias"), inputs(18)[0]
    resized = RelativeBias2d(HEADS, SIZE, (3, 6)).double()
    with torch.no_grad():
        resized.table.copy_(functional.interpolate(positions.table[None], (5, 11), mode="bicubic")[0])
    torch.testing.assert_close(positions(query, (3, 6)).tensor, resized(query, (3, 6)).tensor)
    center = positions.table[:, 1, 3]  # of the offset 0, which stays in the middle
    torch.testing.assert_close(positions(query, (3, 6)).tensor[0, :, 4, 4], center)


@pytest.mark.parametrize("kind", KINDS)
def test_gradients(kind: str) -> None:
    positions = module(kind)
    names, tensors = zip(*positions.named_parameters(), strict=True)

    def run(query: Tensor, *values: Tensor) -> Tensor:
        held = dict(zip(names, values, strict=True))
        bias: rg.TensorBias = torch.func.functional_call(positions, held, (query, GRID))
        return bias.tensor

    assert torch.autograd.gradcheck(run, (inputs()[0].requires_grad_(), *tensors))


@pytest.mark.parametrize("backend", ["chunked", "sdpa", "native"])
@pytest.mark.parametrize("kind", KINDS)
def test_every_backend_gives_the_same_with_gradients(kind: str, backend: str) -> None:
    results = []
    for name in ("reference", backend):
        positions, (query, key, value) = module(kind), inputs().requires_grad_()
        bias = positions(query, GRID)
        assert rg.plan(query, key, value, bias=bias, backend=name).backend == name
        output = rg.attend(query, key, value, bias=bias, backend=name)
        tensors = (query, key, value, *positions.parameters())
        weights = torch.linspace(-1, 1, output.numel(), dtype=output.dtype).view_as(output)
        results.append((output, *torch.autograd.grad((output * weights).sum(), tensors)))
    for result, expected in zip(results[1], results[0], strict=True):
        torch.testing.assert_close(result, expected, rtol=0, atol=1e-12)


def test_a_layer_gives_its_queries_to_a_function() -> None:
    positions, x = module("relative-key"), torch.randn(BATCH, LENGTH, 15, dtype=torch.float64)
    layer = rg.MultiHeadAttention(15, HEADS, output_dim=7).double()
    output = layer(x, bias=partial(positions, grid=GRID))
    query = layer.query_proj(x).unflatten(-1, (HEADS, SIZE)).transpose(1, 2)
    torch.testing.assert_close(output, layer(x, bias=positions(query, GRID)))
    assert output.shape == (BATCH, LENGTH, 7)


def test_errors() -> None:
    with pytest.raises(ConfigError, match="relative-bias"):
        relative_positions("relative-biass", HEADS, SIZE, GRID)
    with pytest.raises(ConfigError, match="rows=0"):
        RelativeKey2d(HEADS, SIZE, (0, 3))
    for kind in KINDS:
        with pytest.raises(ShapeError, match="at least 15, the cells of a grid of 3 x 5"):
            module(kind)(inputs()[0], (3, 5))
    with pytest.raises(ShapeError, match="2 heads; expected 3"):
        module("relative-bias")(inputs()[0][:, :2], GRID)
    with pytest.raises(ShapeError, match="heads of size 4; expected 5"):
        module("relative-key")(inputs()[0][..., :4], GRID)
