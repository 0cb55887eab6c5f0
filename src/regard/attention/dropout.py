"""Counter-based dropout of the weights: the same entries on every backend and in any order of computation.

Each entry of the weight matrix has a random 32-bit word, the first output of Philox4x32-10 with the counter (batch,
head, query row, key row) and the key `seed`. An entry is dropped if its word is below p * 2^32; the others are scaled
by 1 / (1 - p).

Source: Salmon et al. 2011, "Parallel random numbers: as easy as 1, 2, 3", section 4.3.
"""

import torch
from torch import Tensor

WORD = 0xFFFFFFFF
MULTIPLIERS = (0xD2511F53, 0xCD9E8D57)
INCREMENTS = (0x9E3779B9, 0xBB67AE85)
ROUNDS = 10


def philox(counter: tuple[Tensor, Tensor, Tensor, Tensor], seed: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Philox4x32-10: four random 32-bit words for each counter.

    Args:
        counter: four int64 tensors of 32-bit words that broadcast against each other.
        seed: int64 (): its low and high halves are the key.

    Returns:
        Four int64 tensors of 32-bit words.
    """
    c0, c1, c2, c3 = counter
    keys = [seed & WORD, (seed >> 32) & WORD]
    for _ in range(ROUNDS):
        # int64 products wrap but keep all 64 bits; >> extends the sign, which & WORD removes
        p0, p1 = c0 * MULTIPLIERS[0], c2 * MULTIPLIERS[1]
        c0, c1, c2, c3 = (p1 >> 32) & WORD ^ c1 ^ keys[0], p1 & WORD, (p0 >> 32) & WORD ^ c3 ^ keys[1], p0 & WORD
        keys = [(k + i) & WORD for k, i in zip(keys, INCREMENTS, strict=True)]
    return c0, c1, c2, c3


def random_words(
    seed: Tensor, batch: int, heads: int, rows: slice, columns: slice
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Four random 32-bit words for each entry of the weight matrix, (B, H, rows, columns): [0] decides on dropout.

    Args:
        seed: int64 ().
        batch: B.
        heads: H.
        rows: query rows of the call.
        columns: key rows of the call.

    Returns:
        Four int64 tensors.
    """
    device = seed.device
    counter = (
        torch.arange(batch, device=device)[:, None, None, None],
        torch.arange(heads, device=device)[:, None, None],
        torch.arange(rows.start, rows.stop, device=device)[:, None],
        torch.arange(columns.start, columns.stop, device=device),
    )
    return philox(counter, seed)


def keep_scale(
    p: float, seed: Tensor, batch: int, heads: int, rows: slice, columns: slice, dtype: torch.dtype
) -> Tensor:
    """Dropout factors (B, H, rows, columns): 0 for a dropped weight, else 1 / (1 - p).

    Args:
        p: dropout probability, 0 <= p < 1.
        seed: int64 ().
        batch: B.
        heads: H.
        rows: query rows of the call.
        columns: key rows of the call.
        dtype: dtype of the result.

    Returns:
        The factors.
    """
    return _keep_scale(p, random_words(seed, batch, heads, rows, columns)[0], dtype)


def keep_scale_at(p: float, seed: Tensor, keys_BHL: Tensor, dtype: torch.dtype) -> Tensor:
    """Dropout factors (B, H, L) of one weight of each row: that of its key row in `keys_BHL`."""
    device = keys_BHL.device
    batch, head, row = (torch.arange(n, device=device) for n in keys_BHL.shape)
    word = philox((batch[:, None, None], head[:, None], row, keys_BHL), seed.to(device))[0]
    return _keep_scale(p, word, dtype)


def _keep_scale(p: float, word: Tensor, dtype: torch.dtype) -> Tensor:
    return (word >= round(p * 2**32)).to(dtype) / (1 - p)
