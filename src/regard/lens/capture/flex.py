"""Weights of `flex_attention`, from its score and mask functions, some rows at a time."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor


def flex_rows(query: Tensor, key: Tensor, score_mod: Any, mask_mod: Any, scale: float) -> Callable[[slice], Tensor]:
    """The weights of some rows of a call of `flex_attention`.

    Args:
        query: (B, H, L, E).
        key: (B, G, S, E).
        score_mod: of (score, batch, head, query, key).
        mask_mod: of (batch, head, query, key), True = may attend.
        scale: of the dot products.

    Returns:
        A function from a slice of queries to weights (B, H, rows, S); a query that sees nothing has weights 0.
    """
    dtype = query.dtype if query.dtype == torch.float64 else torch.float32
    batch, heads, _, _ = query.shape
    keys = key.repeat_interleave(heads // key.shape[1], 1).to(dtype)
    indices = [torch.arange(size, device=query.device) for size in (batch, heads, query.shape[2], key.shape[2])]

    def rows(part: slice) -> Tensor:
        at = [*indices[:2], indices[2][part], indices[3]]
        scores = query[:, :, part].to(dtype) @ keys.transpose(-1, -2) * scale
        scores = _over_indices(score_mod, scored=True)(scores, *at)
        visible = _over_indices(mask_mod, scored=False)(*at)
        weights = scores.masked_fill(~visible, -torch.inf).softmax(-1)
        return torch.where(visible.any(-1, keepdim=True), weights, 0.0)

    return rows


def _over_indices(function: Any, *, scored: bool) -> Any:
    """A function of single indices, over all of batch, head, query and key."""
    first = (0,) if scored else ()
    for axis in (3, 2, 1, 0):
        dims = (*first, *(0 if i == axis else None for i in range(4)))
        function = torch.vmap(function, in_dims=dims, out_dims=0)
    return function
