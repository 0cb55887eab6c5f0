"""Sampling of tokens with temperature, top-k, top-p and min-p, from a random stream for each sentence."""

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

STEPS_AT_ONCE = 64  # steps whose random numbers are generated together
NUCLEUS = 256  # candidates for top_p; if their probabilities sum to less, the whole vocabulary is sorted
MIN_TEMPERATURE = 1e-30  # smaller ones would be 0 in float32


@final
class Sampler:
    """Samples the next token of each sentence.

    Args:
        search: temperature, top-k, top-p and min-p.
        seed: int64 ().
        keys: int64 (B, 2), two 32-bit words that identify each sentence, see `source_keys`.
    """

    def __init__(self, search: Sample, seed: Tensor, keys: Tensor) -> None:
        self.search, self.seed, self.keys = search, seed, keys
        self.uniform = torch.empty(0)  # (B, STEPS_AT_ONCE) random numbers in [0, 1)

    def __call__(self, logits: Tensor, vocabulary: Vocabulary, step: int, sentences: Tensor) -> tuple[Tensor, Tensor]:
        """Sample a token for each sentence.

        Args:
            logits: (B', N), of the B' sentences that are not finished.
            vocabulary: tokens in its `never` are not sampled.
            step: number of the step, from 0.
            sentences: (B',), their indices among the B sentences.

        Returns:
            Tokens (B',), and their log-probabilities by the model (B',).
        """
        if step % STEPS_AT_ONCE == 0:
            steps = torch.arange(step, step + STEPS_AT_ONCE, device=self.keys.device)
            low, high = self.keys[:, :1], self.keys[:, 1:]
            words = philox((low, high, steps, torch.zeros_like(steps)), self.seed)[0]
            self.uniform = (words >> 8).float() / 2**24  # 24 bits: below 1 in float32 too
        tokens = sample_tokens(vocabulary.allowed(logits), self.search, self.uniform[sentences, step % STEPS_AT_ONCE])
        return tokens, logits.log_softmax(1).gather(1, tokens[:, None])[:, 0]


def sample_tokens(logits: Tensor, search: Sample, uniform: Tensor) -> Tensor:
    """Sample a token for each row.

    Args:
        logits: (R, N).
        search: temperature, top-k, top-p and min-p.
        uniform: random numbers (R,), 0 <= number < 1.

    Returns:
        Tokens (R,).
    """
    logits = (logits - logits.amax(1, keepdim=True)) / max(search.temperature, MIN_TEMPERATURE)
    if search.min_p:
        logits = logits.masked_fill(logits < math.log(search.min_p), -torch.inf)
    if search.top_k is None and search.top_p is None:
        return inverse_cdf(logits.softmax(1), uniform)
    size = logits.shape[1]
    values, tokens = top(logits, min(search.top_k or NUCLEUS, size))
    total = (logits if search.top_k is None else values).logsumexp(1, keepdim=True)
    if search.top_p is not None:
        sums = (values - total).exp().cumsum(1)
        if search.top_k is None and bool((sums[:, -1] < search.top_p).any()):
            values, tokens = logits.sort(1, descending=True)
            sums = (values - total).exp().cumsum(1)
        outside = sums[:, :-1] >= search.top_p  # the tokens before already have this probability
        values = torch.cat((values[:, :1], values[:, 1:].masked_fill(outside, -torch.inf)), 1)
    return tokens.gather(1, inverse_cdf(values.softmax(1), uniform)[:, None])[:, 0]


def inverse_cdf(probabilities: Tensor, uniform: Tensor) -> Tensor:
    """Inverse transform sampling: the first index at which the cumulative sum of a row exceeds a share of its total.

    Args:
        probabilities: (R, N), of any positive sum.
        uniform: the share (R,), 0 <= share < 1.

    Returns:
        Indices (R,), never of an entry of 0.
    """
    sums = probabilities.cumsum(1)
    return torch.searchsorted(sums, uniform[:, None] * sums[:, -1:], right=True)[:, 0]


def source_keys(sources: Sequence[Sequence[int]]) -> Tensor:
    """The key of each source's random stream: two 32-bit words (B, 2), a hash of its tokens and of its repetition.

    The first, second and further occurrences of equal sources have different keys.
    """
    counts: Counter[tuple[int, ...]] = Counter()
    words = []
    for source in map(tuple, sources):
        text = ",".join(map(str, (*source, counts[source])))
        counts[source] += 1
        digest = hashlib.blake2b(text.encode(), digest_size=8).digest()
        words.append([int.from_bytes(digest[:4], "little"), int.from_bytes(digest[4:], "little")])
    return torch.tensor(words)
