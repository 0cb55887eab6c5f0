"""Drawing a token for each of many sentences, each from random numbers of its own."""

import hashlib
import math
from collections import Counter
from collections.abc import Sequence
from typing import final

import torch
from torch import Tensor

from regard.attention.dropout import philox
from regard.decode.search import Sample
from regard.decode.top import top
from regard.models.seq2seq import Vocabulary

AHEAD = 64  # steps whose random numbers are made at once
NUCLEUS = 256  # tokens that mostly hold the probability top_p; else the whole vocabulary is sorted


@final
class Draw:
    """Draws tokens by `search` for sentences with these keys (B, 2).

    Args:
        search: temperature, top-k and top-p.
        seed: int64 ().
        keys: int64 (B, 2), two 32-bit words that tell one sentence from another.
    """

    def __init__(self, search: Sample, seed: Tensor, keys: Tensor) -> None:
        self.search, self.seed, self.keys = search, seed, keys
        self.uniform = torch.empty(0)

    def __call__(self, logits: Tensor, vocabulary: Vocabulary, step: int, sentences: Tensor) -> tuple[Tensor, Tensor]:
        """A token (B',) and its log-probability for each of the sentences (B',) that are left, from logits (B', N)."""
        if step % AHEAD == 0:
            steps = torch.arange(step, step + AHEAD, device=self.keys.device)
            low, high = self.keys[:, :1], self.keys[:, 1:]
            words = philox((low, high, steps, torch.zeros_like(steps)), self.seed)[0]
            self.uniform = (words >> 8).float() / 2**24  # (B, AHEAD), below 1 in float32 too
        tokens = draw(vocabulary.allowed(logits), self.search, self.uniform[sentences, step % AHEAD])
        return tokens, logits.log_softmax(1).gather(1, tokens[:, None])[:, 0]


COLDEST = 1e-30  # a temperature that float32 tells from 0


def draw(logits: Tensor, search: Sample, uniform: Tensor) -> Tensor:
    """The tokens (R,) at which the cumulative probabilities of the logits (R, N) pass numbers (R,), 0 <= number < 1."""
    logits = (logits - logits.amax(1, keepdim=True)) / max(search.temperature, COLDEST)
    if search.min_p:
        logits = logits.masked_fill(logits < math.log(search.min_p), -torch.inf)
    if search.top_k is None and search.top_p is None:
        return passed(logits.softmax(1), uniform)
    size = logits.shape[1]
    values, tokens = top(logits, min(search.top_k or NUCLEUS, size))
    total = (logits if search.top_k is None else values).logsumexp(1, keepdim=True)
    if search.top_p is not None:
        sums = (values - total).exp().cumsum(1)
        if search.top_k is None and bool((sums[:, -1] < search.top_p).any()):
            values, tokens = logits.sort(1, descending=True)
            sums = (values - total).exp().cumsum(1)
        enough = sums[:, :-1] >= search.top_p  # without the token itself
        values = torch.cat((values[:, :1], values[:, 1:].masked_fill(enough, -torch.inf)), 1)
    return tokens.gather(1, passed(values.softmax(1), uniform)[:, None])[:, 0]


def passed(probabilities: Tensor, uniform: Tensor) -> Tensor:
    """Where the running sum of each row (R, N) passes that part (R,) of its whole; entries of 0 are never found."""
    sums = probabilities.cumsum(1)
    return torch.searchsorted(sums, uniform[:, None] * sums[:, -1:], right=True)[:, 0]


def keys(sources: Sequence[Sequence[int]]) -> Tensor:
    """Two words (B, 2) for each source, by its tokens and by how many equal sources stand before it."""
    seen: Counter[tuple[int, ...]] = Counter()
    words = []
    for source in map(tuple, sources):
        text = ",".join(map(str, (*source, seen[source])))
        seen[source] += 1
        digest = hashlib.blake2b(text.encode(), digest_size=8).digest()
        words.append([int.from_bytes(digest[:4], "little"), int.from_bytes(digest[4:], "little")])
    return torch.tensor(words)
