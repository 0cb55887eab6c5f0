"""Batches of texts of unequal lengths: padding stands at the right, and comes there from wherever it was."""

import torch
from torch import Tensor

from regard.attention.check import show
from regard.errors import ShapeError

INTEGERS = (torch.int64, torch.int32)


def check_tokens(name: str, tokens: Tensor, rows: int | None = None) -> None:
    """Raise ShapeError unless these are token ids (B, L), of as many rows as expected."""
    if not isinstance(tokens, Tensor) or tokens.dim() != 2 or tokens.dtype not in INTEGERS:
        raise ShapeError(f"{name} is {show(tokens)}; expected token ids, integers of shape (batch, length)")
    if rows is not None and len(tokens) != rows:
        raise ShapeError(f"inputs has {rows} rows and {name} {len(tokens)}; expected as many of each")


def check_lengths(inputs: Tensor, lengths: Tensor | None) -> None:
    """Raise ShapeError unless these are as many lengths as inputs (B, L, ...) have rows; None for no padding."""
    if lengths is None:
        return
    if not isinstance(lengths, Tensor) or lengths.dtype not in INTEGERS or lengths.shape != inputs.shape[:1]:
        raise ShapeError(
            f"lengths is {show(lengths)}; expected integers of shape ({len(inputs)},), how many inputs of each row "
            "are not padding"
        )


def check_texts(tokens: Tensor, lengths: Tensor | None) -> None:
    """Raise ShapeError unless these are token ids (B, L), and how many of each row are not padding."""
    check_tokens("tokens", tokens)
    check_lengths(tokens, lengths)


def to_right(mask: Tensor) -> tuple[Tensor, Tensor]:
    """How padding that a mask leaves out is brought to the right, wherever it stands.

    Args:
        mask: (B, L), not 0 where a token is real, as the transformers package has it.

    Returns:
        The column that each token comes from, (B, L), real ones first and in their order: `tokens.gather(1, columns)`;
        and how many are real, (B,). `x.gather(1, columns.argsort(1))` brings tokens back.

    Raises:
        ShapeError: something else than a matrix.

    >>> columns, lengths = to_right(torch.tensor([[0, 0, 1, 1], [1, 1, 1, 0]]))
    >>> columns.tolist(), lengths.tolist()
    ([[2, 3, 0, 1], [0, 1, 2, 3]], [2, 3])
    """
    if not isinstance(mask, Tensor) or mask.dim() != 2:
        raise ShapeError(
            f"mask is {show(mask)}; expected a tensor of shape (batch, length), not 0 where a token is real"
        )
    real = mask != 0
    return (~real).int().argsort(dim=1, stable=True), real.sum(1)
