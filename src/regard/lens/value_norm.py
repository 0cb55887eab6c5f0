"""Norm-based analysis of attention: weights times how long the vectors are that they mix."""

import torch
from torch import Tensor

from regard.errors import ShapeError


def value_norms(weights: Tensor, value: Tensor, output_proj: Tensor | None = None) -> Tensor:
    """Norms of the weighted vectors that each query adds up, ||a_ij f(x_j)||.

    A key may get much weight and give a vector of almost no length, as separators do in BERT; weights alone show it as
    important.

    Args:
        weights: (B, H, L, S).
        value: (B, G, S, V), where G divides H.
        output_proj: weight of the output projection (D, H V), whose part of each head makes f(x) = v W_O; None for the
            values themselves.

    Returns:
        (B, H, L, S).

    Raises:
        ShapeError: sizes that don't go together.

    Source: Kobayashi et al. 2020, arXiv 2004.10102, equations 3 to 5.
    """
    batch, heads, _, keys = weights.shape
    groups, features = value.shape[1], value.shape[3]
    if value.shape[0] != batch or value.shape[2] != keys or heads % groups:
        raise ShapeError(
            f"value_norms: weights {tuple(weights.shape)} and value {tuple(value.shape)} don't go together"
        )
    value = value.repeat_interleave(heads // groups, 1)
    if output_proj is not None:
        if output_proj.shape[1] != heads * features:
            raise ShapeError(f"value_norms: output_proj {tuple(output_proj.shape)}; expected (D, {heads * features})")
        by_head = output_proj.view(-1, heads, features)  # (D, H, V)
        value = torch.einsum("bhsv,dhv->bhsd", value, by_head)
    norms: Tensor = weights * value.norm(dim=-1)[:, :, None]
    return norms
