"""Top-k of long rows: `torch.topk` on the CPU takes several times as long as reading them."""

import torch
from torch import Tensor

from regard.attention.engine.tracing import is_traced
from regard.layers.linear import fast, is_plain
from regard.models.seq2seq import Vocabulary

BLOCK = 16  # entries that are first known by their maximum alone
SHORT = 128  # columns below which torch.topk is faster
MAX_COUNT = 64  # largest count, and number of excluded tokens, of the kernel, which finds them one by one


def topk_log_probs(logits: Tensor, vocabulary: Vocabulary, count: int) -> tuple[Tensor, Tensor]:
    """Top-k log-probabilities of the tokens that the vocabulary allows, row by row.

    Args:
        logits: (R, N), in float32.
        vocabulary: of N tokens.
        count: tokens to find, 1 <= count <= N.

    Returns:
        Log-probabilities (R, count), greatest first, and the tokens. Beyond the number of allowed
        tokens: -inf, with arbitrary tokens. NaN where a row has one.
    """
    rows, size = logits.shape
    plain = is_plain(logits) and logits.stride(1) == 1 and not logits.requires_grad and not is_traced()
    kernel = fast()
    if kernel is None or not plain or max(count, len(vocabulary.never)) > MAX_COUNT:
        return top(vocabulary.allowed(logits.log_softmax(1)), count)
    values, tokens = logits.new_empty(rows, count), logits.new_empty(rows, count, dtype=torch.int64)
    kernel.topk_log_probs(
        rows, size, logits.data_ptr(), logits.stride(0), vocabulary.never, count, values.data_ptr(), tokens.data_ptr(),
        torch.get_num_threads(),
    )  # fmt: skip
    return values, tokens


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
