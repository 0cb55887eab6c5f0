"""Padded batches: checks of tokens and lengths, and moving padding to the right."""

import torch
from torch import Tensor

from regard.attention.check import show
from regard.errors import ShapeError

INTEGERS = (torch.int64, torch.int32)


def check_tokens(name: str, tokens: Tensor, rows: int | None = None) -> None:
    """Raise ShapeError unless `tokens` are token ids (B, L), with B = `rows` if it is given."""
    if not isinstance(tokens, Tensor) or tokens.dim() != 2 or tokens.dtype not in INTEGERS:
        raise ShapeError(f"{name} is {show(tokens)}; expected token ids, integers of shape (batch, length)")
    if rows is not None and len(tokens) != rows:
        raise ShapeError(f"inputs has {rows} rows and {name} has {len(tokens)}; expected the same number")


def check_lengths(inputs: Tensor, lengths: Tensor | None) -> None:
    """Raise ShapeError unless `lengths` is None, or integers (B,) for inputs (B, L, ...)."""
    if lengths is None:
        return
    if not isinstance(lengths, Tensor) or lengths.dtype not in INTEGERS or lengths.shape != inputs.shape[:1]:
        raise ShapeError(
            f"lengths is {show(lengths)}; expected integers of shape ({len(inputs)},): the number of inputs in each "
            "row that are not padding"
        )


def check_texts(tokens: Tensor, lengths: Tensor | None) -> None:
    """Raise ShapeError unless these are token ids (B, L) and their lengths (B,), or None."""
    check_tokens("tokens", tokens)
    check_lengths(tokens, lengths)


def to_right(mask: Tensor) -> tuple[Tensor, Tensor]:
    """The permutation that moves padding to the right.

    Args:
        mask: attention mask (B, L) as in the transformers package: 0 at padding, which may be anywhere.

    Returns:
        Column indices (B, L), those of tokens first and in their order: `tokens.gather(1, columns)` moves padding to
        the right, `x.gather(1, columns.argsort(1))` moves it back; and the number of tokens in each row, (B,).

    Raises:
        ShapeError: a mask that is not a matrix.

    >>> columns, lengths = to_right(torch.tensor([[0, 0, 1, 1], [1, 1, 1, 0]]))
    >>> columns.tolist(), lengths.tolist()
    ([[2, 3, 0, 1], [0, 1, 2, 3]], [2, 3])
    """
    if not isinstance(mask, Tensor) or mask.dim() != 2:
        raise ShapeError(f"mask is {show(mask)}; expected an attention mask of shape (batch, length), 0 at padding")
    is_token = mask != 0
    return (~is_token).int().argsort(dim=1, stable=True), is_token.sum(1)
