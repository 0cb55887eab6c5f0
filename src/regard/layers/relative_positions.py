"""Relative positions of the cells of a grid, such as a picture's patches, as biases of attention.

Layout: a grid of h rows and w columns, whose N = h w cells stand row by row behind T special tokens, such as a class
token; L = T + N. Special tokens have no place in the grid: the bias of and towards them is 0.
"""

from collections.abc import Callable
from typing import Literal, final

import torch
from torch import Tensor, nn
from torch.nn import functional

from regard.attention.bias import TensorBias
from regard.attention.check import check_integer
from regard.errors import ConfigError, ShapeError, nearest

RelativePositions = Literal["relative-bias", "relative-key"]
Grid = tuple[int, int]  # rows and columns
QueryBias = Callable[[Tensor], TensorBias]  # from queries (B, H, L, E)
INITIAL = 0.02  # deviation of first weights


@final
class RelativeBias2d(nn.Module):
    """Relative position bias in two dimensions: one learned value for each head, row offset and column offset.

    b[h, (y, x), (v, u)] = table[h, v - y + rows - 1, u - x + columns - 1]. On a grid of another size than the table was
    made for, the table is interpolated bicubically.

    Args:
        num_heads: H.
        head_dim: E; unused, as all relative positions take it.
        grid: rows and columns of the grid, each >= 1.

    Raises:
        ConfigError: a size below 1.

    Source: Liu et al. 2021, "Swin Transformer", arXiv 2103.14030, section 3.2, equation 4.

    >>> RelativeBias2d(2, 8, (3, 4))(torch.zeros(1, 2, 13, 8), (3, 4)).tensor.shape
    torch.Size([1, 2, 13, 13])
    """

    def __init__(self, num_heads: int, head_dim: int, grid: Grid) -> None:
        super().__init__()
        _check("RelativeBias2d", num_heads, head_dim, grid)
        rows, columns = grid
        self.table = nn.Parameter(torch.empty(num_heads, 2 * rows - 1, 2 * columns - 1))
        nn.init.trunc_normal_(self.table, std=INITIAL)

    def forward(self, query: Tensor, grid: Grid) -> TensorBias:
        """The bias.

        Args:
            query: (B, H, L, E), of which only the length counts.
            grid: rows and columns.

        Returns:
            A bias (1, H, L, L).

        Raises:
            ShapeError: fewer queries than the grid has cells, or another number of heads.
        """
        special = _special("RelativeBias2d", query, grid)
        if query.shape[1] != len(self.table):
            raise ShapeError(f"RelativeBias2d: query has {query.shape[1]} heads; expected {len(self.table)}")
        rows, columns = grid
        table, size = self.table, (2 * rows - 1, 2 * columns - 1)
        if tuple(table.shape[1:]) != size:
            table = functional.interpolate(table[None], size, mode="bicubic")[0]
        # windows[a, b, v, u] = table[a + v, b + u]; the query in row y wants a = rows - 1 - y
        windows = table.unfold(1, rows, 1).unfold(2, columns, 1).flip(1, 2)
        return _behind(windows.flatten(3).flatten(1, 2)[None], special)


@final
class RelativeKey2d(nn.Module):
    """Relative keys in two dimensions: the product of the query with a learned vector for each row and column offset.

    b[(y, x), (v, u)] = q . (row_table[v - y] + column_table[u - x]) / sqrt(E), where offsets beyond the tables' are
    clipped to them. Heads share the tables.

    Args:
        num_heads: H; unused, as all relative positions take it.
        head_dim: E.
        grid: rows and columns of the grid, each >= 1; the largest offsets are rows - 1 and columns - 1.

    Raises:
        ConfigError: a size below 1.

    Source: Shaw et al. 2018, arXiv 1803.02155, sections 3.1 and 3.2, equation 4; by rows and columns: Bello et al.
    2019, arXiv 1904.09925, section 3.1.

    >>> RelativeKey2d(2, 8, (3, 4))(torch.zeros(1, 2, 13, 8), (3, 4)).tensor.shape
    torch.Size([1, 2, 13, 13])
    """

    def __init__(self, num_heads: int, head_dim: int, grid: Grid) -> None:
        super().__init__()
        _check("RelativeKey2d", num_heads, head_dim, grid)
        self.row_table, self.column_table = (nn.Parameter(torch.empty(2 * side - 1, head_dim)) for side in grid)
        for table in (self.row_table, self.column_table):
            nn.init.normal_(table, std=head_dim**-0.5)

    def forward(self, query: Tensor, grid: Grid) -> TensorBias:
        """The bias.

        Args:
            query: (B, H, L, E).
            grid: rows and columns.

        Returns:
            A bias (B, H, L, L).

        Raises:
            ShapeError: fewer queries than the grid has cells, or heads of another size.
        """
        special = _special("RelativeKey2d", query, grid)
        head_dim = self.row_table.shape[1]
        if query.shape[3] != head_dim:
            raise ShapeError(f"RelativeKey2d: query has heads of size {query.shape[3]}; expected {head_dim}")
        cells = query[:, :, special:].unflatten(2, grid) * head_dim**-0.5  # (B, H, y, x, E)
        of_rows, of_columns = (
            _by_pair(table, side).to(query.dtype)
            for table, side in zip((self.row_table, self.column_table), grid, strict=True)
        )
        by_row = torch.einsum("bhyxe,yve->bhyxv", cells, of_rows)
        by_column = torch.einsum("bhyxe,xue->bhyxu", cells, of_columns)
        bias = by_row[..., None] + by_column[..., None, :]  # (B, H, y, x, v, u)
        return _behind(bias.flatten(4).flatten(2, 3), special)


RELATIVE: dict[str, type[RelativeBias2d] | type[RelativeKey2d]] = {
    "relative-bias": RelativeBias2d,
    "relative-key": RelativeKey2d,
}


def relative_positions(kind: str, num_heads: int, head_dim: int, grid: Grid) -> nn.Module:
    """The relative positions of a layer, by name.

    Args:
        kind: "relative-bias" or "relative-key".
        num_heads: H.
        head_dim: E.
        grid: rows and columns of the grid, each >= 1.

    Returns:
        The module; `module(query, grid)` gives the bias.

    Raises:
        ConfigError: an unknown kind, or a size below 1.
    """
    if kind not in RELATIVE:
        raise ConfigError(f"unknown relative positions {kind!r}; {nearest(kind, RELATIVE)}")
    return RELATIVE[kind](num_heads, head_dim, grid)


def _check(owner: str, num_heads: int, head_dim: int, grid: Grid) -> None:
    rows, columns = grid
    for name, size in (("num_heads", num_heads), ("head_dim", head_dim), ("rows", rows), ("columns", columns)):
        check_integer(owner, name, size, 1)


def _special(owner: str, query: Tensor, grid: Grid) -> int:
    """T, the number of queries before those of the grid; ShapeError if there are too few."""
    rows, columns = grid
    if query.dim() != 4 or query.shape[2] < rows * columns:
        raise ShapeError(
            f"{owner}: query has shape {tuple(query.shape)}; expected (batch, heads, length, head_dim) with a length "
            f"of at least {rows * columns}, the cells of a grid of {rows} x {columns}"
        )
    return query.shape[2] - rows * columns


def _by_pair(table: Tensor, side: int) -> Tensor:
    """Vectors (side, side, E) of a query's and a key's row or column, from those of offsets (2 k + 1, E)."""
    farthest = len(table) // 2
    places = torch.arange(side, device=table.device)
    offset = (places - places[:, None]).clamp(-farthest, farthest)
    return functional.embedding(offset + farthest, table)


def _behind(bias: Tensor, special: int) -> TensorBias:
    """A bias of the cells (B, H, N, N) with rows and columns of 0 for the special tokens before them."""
    return TensorBias(functional.pad(bias, (special, 0, special, 0)) if special else bias)
