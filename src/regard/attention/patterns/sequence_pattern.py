"""Patterns that depend on data about each sequence: lengths, documents, masks, centers."""

from typing import Any, final

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from regard.attention.check import check_tensor, is_number, show
from regard.attention.engine.tracing import array
from regard.attention.patterns.intervals import FAR, Intervals
from regard.attention.patterns.pattern import Pattern
from regard.attention.patterns.schedule import Blocks, KeyRanges
from regard.attention.value import tensor_field, value
from regard.errors import ConfigError, ShapeError


@final
@value
class KeyLengths(Pattern):
    """Padding mask by key lengths: only the first `lengths[b]` positions of sequence b are visible.

    Args:
        lengths: integers, (B,), number of positions.

    Raises:
        ShapeError: lengths that are not integers of shape (B,).

    >>> print(KeyLengths(torch.tensor([2])).draw(queries=2, keys=4))
    ██··
    ██··
    """

    lengths: Tensor = tensor_field("B")

    def __post_init__(self) -> None:
        _check_integers("KeyLengths", "lengths", self.lengths, "(batch,)", 1)

    def visible(self, query_BL: Tensor, key_S: Tensor) -> Tensor:
        return (key_S < self.lengths[:, None])[:, None, None]

    def key_ranges(self, blocks: Blocks) -> KeyRanges:
        longest, shortest = int(self.lengths.max()), int(self.lengths.min())
        return KeyRanges(*(Intervals.of([-FAR], [n], len(blocks)) for n in (longest, shortest)))


@final
@value
class PrefixLM(Pattern):
    """Prefix language model: every query sees the prefix of its sequence, and the keys up to its own position.

    Args:
        prefix_lengths: integers, (B,), number of positions.

    Raises:
        ShapeError: lengths that are not integers of shape (B,).

    Source: Raffel et al. 2019, arXiv 1910.10683, section 3.2.1, "Prefix LM".

    >>> print(PrefixLM(torch.tensor([2])).draw(queries=4, keys=4))
    ██··
    ██··
    ███·
    ████
    """

    prefix_lengths: Tensor = tensor_field("B")

    def __post_init__(self) -> None:
        _check_integers("PrefixLM", "prefix_lengths", self.prefix_lengths, "(batch,)", 1)

    def visible(self, query_BL: Tensor, key_S: Tensor) -> Tensor:
        return (key_S < self.prefix_lengths[:, None])[:, None, None] | (key_S <= query_BL[:, None, :, None])

    def key_ranges(self, blocks: Blocks) -> KeyRanges:
        longest, shortest = int(self.prefix_lengths.max()), int(self.prefix_lengths.min())
        some = np.maximum(blocks.last + 1, longest)[:, None]
        every = np.maximum(blocks.first + 1, shortest)[:, None]
        return KeyRanges(*(Intervals.of(np.full_like(stop, -FAR), stop, len(blocks)) for stop in (some, every)))


@final
@value
class Documents(Pattern):
    """Packed documents: a query sees the keys of its own document.

    Args:
        query_ids: integers, (B, L): document of each query.
        key_ids: integers, (B, S): document of each key; `query_ids` by default.

    Raises:
        ShapeError: ids that are not 2D integers.

    Source: Krell et al. 2021, arXiv 2107.02027, section 3.2.

    >>> import regard as rg
    >>> print((rg.Causal() & rg.Documents(torch.tensor([[1, 1, 2, 2, 2]]))).draw(queries=5, keys=5))
    █····
    ██···
    ··█··
    ··██·
    ··███
    """

    query_ids: Tensor = tensor_field("BL")
    key_ids: Tensor = tensor_field("BS", default=None)

    def __post_init__(self) -> None:
        if self.key_ids is None:
            object.__setattr__(self, "key_ids", self.query_ids)
        for name in ("query_ids", "key_ids"):
            _check_integers("Documents", name, getattr(self, name), "(batch, length)", 2)

    def visible(self, query_BL: Tensor, key_S: Tensor) -> Tensor:
        return (self.query_ids[:, :, None] == self.key_ids[:, None, :])[:, None]

    def key_ranges(self, blocks: Blocks) -> KeyRanges:
        min_Bb, max_Bb = _block_bounds(self.query_ids, blocks)
        keys_BS, cells = array(self.key_ids), blocks.cells()[:-1]
        min_Bc, max_Bc = (f.reduceat(keys_BS, cells, axis=1) for f in (np.minimum, np.maximum))
        overlap = (min_Bb[:, :, None] <= max_Bc[:, None]) & (min_Bc[:, None] <= max_Bb[:, :, None])
        single = (min_Bb == max_Bb)[:, :, None] & (min_Bc == max_Bc)[:, None]
        return KeyRanges.of_cells(np.any(overlap, axis=0), np.all(overlap & single, axis=0), blocks)


@final
@value
class Mask(Pattern):
    """Arbitrary boolean mask, True = may attend.

    Args:
        tensor: booleans that broadcast to (B, H, L, S).

    Raises:
        ShapeError: a mask that is not boolean, or not of one to four dimensions.

    >>> print(Mask(torch.eye(3, dtype=torch.bool)).draw(queries=3, keys=3))
    █··
    ·█·
    ··█
    """

    tensor: Tensor = tensor_field("BHLS")

    def __post_init__(self) -> None:
        check_tensor("Mask", "tensor", self.tensor)
        if self.tensor.dtype != torch.bool or not 0 < self.tensor.dim() <= 4:
            raise ShapeError(
                f"Mask: got {self.tensor.dtype} of shape {tuple(self.tensor.shape)}; expected torch.bool that "
                "broadcasts to (batch, heads, queries, keys), True = may attend; for floats to add use TensorBias"
            )

    @staticmethod
    def from_hidden(hidden: Tensor) -> "Mask":
        """Make a mask from the opposite polarity, True = may NOT attend, as in torch.nn.MultiheadAttention.

        Args:
            hidden: booleans that broadcast to (B, H, L, S).

        Returns:
            The mask.

        Raises:
            ShapeError: as for `Mask`.
        """
        check_tensor("Mask.from_hidden", "hidden", hidden)
        return Mask(~hidden) if hidden.dtype == torch.bool else Mask(hidden)

    def visible(self, query_BL: Tensor, key_S: Tensor) -> Tensor:
        return self.tensor.reshape((1,) * (4 - self.tensor.dim()) + tuple(self.tensor.shape))

    def key_ranges(self, blocks: Blocks) -> KeyRanges:
        mask = array(self.tensor)
        mask = mask.reshape((1,) * (4 - mask.ndim) + mask.shape)
        grids: list[npt.NDArray[np.bool_]] = []
        for over in (np.logical_or, np.logical_and):
            grid: npt.NDArray[np.bool_] = np.asarray(over.reduce(mask, axis=(0, 1)))
            grid = grid if grid.shape[0] == 1 else over.reduceat(grid, blocks.edges[:-1], axis=0)
            grid = np.broadcast_to(grid, (grid.shape[0], blocks.num_keys))
            grids.append(over.reduceat(grid, blocks.cells()[:-1], axis=1))
        return KeyRanges.of_cells(grids[0], grids[1], blocks)


@final
@value
class Around(Pattern):
    """Window around a center for each query: -left <= key - center <= right.

    Luong's local attention: monotonic (local-m) with the query's position as center; predictive (local-p) with a
    learned center and the prior `Gaussian`, through which the center gets its gradient.

    Args:
        center: positions, integers or floats, that broadcast to (B, H, L).
        left: distance before the center, in positions, >= 0.
        right: distance after the center, in positions, >= 0.

    Raises:
        ConfigError: a negative bound.
        ShapeError: a center that is not of one to three dimensions.

    Source: Luong et al. 2015, arXiv 1508.04025, section 3.2.

    >>> print(Around(torch.tensor([0.0, 2.5, 4.0]), left=1, right=1).draw(queries=3, keys=5))
    ██···
    ··██·
    ···██
    """

    center: Tensor = tensor_field("BHL")
    left: float
    right: float

    def __post_init__(self) -> None:
        check_tensor("Around", "center", self.center)
        if not 0 < self.center.dim() <= 3:
            raise ShapeError(
                f"Around: center has shape {tuple(self.center.shape)}; expected one that broadcasts to "
                "(batch, heads, queries)"
            )
        for name, bound in (("left", self.left), ("right", self.right)):
            if not (is_number(bound) and bound >= 0):
                raise ConfigError(f"Around: {name}={show(bound)} must be a number of positions, >= 0")

    def visible(self, query_BL: Tensor, key_S: Tensor) -> Tensor:
        center = self.center.detach()[..., None]
        distance = center - key_S
        visible = (distance <= self.left) & (distance >= -self.right)
        return visible.reshape((1,) * (4 - visible.dim()) + tuple(visible.shape))

    def key_ranges(self, blocks: Blocks) -> KeyRanges:
        center = self.center.detach().double()
        has_nan = bool(center.isnan().any())  # a query with a NaN center sees nothing, so `every` is empty
        lowest, highest = _block_bounds(center.nan_to_num(nan=0.0).clamp(-FAR // 2, FAR // 2), blocks)
        lowest, highest = lowest.min(0)[:, None], highest.max(0)[:, None]
        n = len(blocks)
        left, right = min(self.left, FAR // 2), min(self.right, FAR // 2)
        some = Intervals.of(np.ceil(lowest - left), np.floor(highest + right) + 1, n)
        every = Intervals.of(np.ceil(highest - left), np.floor(lowest + right) + 1, n)
        return KeyRanges(some, Intervals.nothing(n) if has_nan else every)


def _block_bounds(tensor: Tensor, blocks: Blocks) -> tuple[npt.NDArray[Any], npt.NDArray[Any]]:
    """Min and max of each block's rows of a tensor (..., L or 1): two arrays (product of ..., blocks)."""
    rows = array(tensor).reshape(-1, tensor.shape[-1])
    if rows.shape[1] == 1:
        spread = np.repeat(rows, len(blocks), axis=1)
        return spread, spread
    return np.minimum.reduceat(rows, blocks.edges[:-1], axis=1), np.maximum.reduceat(rows, blocks.edges[:-1], axis=1)


def _check_integers(owner: str, name: str, tensor: Tensor, expected: str, dims: int) -> None:
    check_tensor(owner, name, tensor)
    if tensor.is_floating_point() or tensor.dtype == torch.bool or tensor.dim() != dims:
        raise ShapeError(
            f"{owner}: {name} is {tensor.dtype} of shape {tuple(tensor.shape)}; expected integers of shape {expected}"
        )
