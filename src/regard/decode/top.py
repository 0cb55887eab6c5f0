"""Top-k of long rows on the CPU, faster than `torch.topk`."""

import torch
from torch import Tensor

from regard.attention.engine.tracing import is_traced
from regard.layers.linear import fast, is_plain
from regard.models.seq2seq import Vocabulary

BLOCK = 16  # entries of a block, which is first represented by its maximum
SHORT = 128  # with fewer blocks than this, torch.topk is faster
FEW = 64  # tokens that the kernel looks for, or passes over, one by one


def likeliest(logits: Tensor, vocabulary: Vocabulary, count: int) -> tuple[Tensor, Tensor]:
    """The most probable tokens of each row that the vocabulary allows.

    Args:
        logits: (R, N), in float32.
        vocabulary: of N tokens.
        count: tokens to find, 1 <= count <= N.

    Returns:
        Log-probabilities (R, count), greatest first, and the tokens. Where there are fewer, log-probabilities of -inf
        and some tokens. NaN where a row has one.
    """
    rows, size = logits.shape
    plain = is_plain(logits) and logits.stride(1) == 1 and not logits.requires_grad and not is_traced()
    kernel = fast()
    if kernel is None or not plain or max(count, len(vocabulary.never)) > FEW:
        return top(vocabulary.allowed(logits.log_softmax(1)), count)
    values, tokens = logits.new_empty(rows, count), logits.new_empty(rows, count, dtype=torch.int64)
    kernel.likeliest(
        rows, size, logits.data_ptr(), logits.stride(0), vocabulary.never, count, values.data_ptr(), tokens.data_ptr(),
        torch.get_num_threads(),
    )  # fmt: skip
    return values, tokens


def top(x: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """The `count` largest entries of each row, as `x.topk(count, 1)`.

    The `count` largest entries lie in the `count` blocks with the largest maxima, so only these are searched. A block
    is a column of the row reshaped to (BLOCK, columns): its maximum is vectorized over columns.

    Args:
        x: (R, N).
        count: entries of each row, 1 <= count <= N.

    Returns:
        Values (R, count), largest first, and their indices. Among equal entries any may be chosen.
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
    values, indices = x.gather(1, candidates).topk(count, 1)
    return values, candidates.gather(1, indices)
