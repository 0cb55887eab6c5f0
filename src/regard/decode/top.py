"""The greatest entries of long rows, for which `torch.topk` on the CPU takes several times as long as reading them."""

import torch
from torch import Tensor

BLOCK = 16  # entries that are first known by their maximum alone
SHORT = 128  # columns below which the detour is longer than the way


def top(x: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """The same as `x.topk(count, 1)`: the greatest entries of each row, and where they stand.

    The `count` greatest entries are in the `count` blocks of greatest maxima: only those are looked into. A block is
    a column of the row written in BLOCK lines, since maxima over lines are computed for many columns at once.

    Args:
        x: (R, N).
        count: entries to find, 1 <= count <= N.

    Returns:
        Values (R, count), greatest first, and their indices. Which of equal entries are found is not said.
    """
    rows, size = x.shape
    columns = size // BLOCK
    if columns < max(count, SHORT) or x.device.type != "cpu":
        return x.topk(count, 1)
    whole = BLOCK * columns
    _, chosen = top(x[:, :whole].unflatten(1, (BLOCK, columns)).amax(1), count)
    lines = torch.arange(0, whole, columns)
    rest = torch.arange(whole, size).expand(rows, -1)
    candidates = torch.cat(((chosen[:, :, None] + lines).flatten(1), rest), 1)
    values, found = x.gather(1, candidates).topk(count, 1)
    return values, candidates.gather(1, found)
