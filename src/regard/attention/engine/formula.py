"""Steps of the attention formula that backends share: masked scores, prior, and the weighted sum of values."""

from collections.abc import Sequence
from itertools import accumulate

import torch
from torch import Tensor

from regard.attention.bias import Bias
from regard.attention.hard import Hard, noise_words
from regard.attention.normalizer import Normalizer, Softmax
from regard.attention.score import products
from regard.attention.spec import AttentionSpec
from regard.attention.value import slice_value


def masked_scores(
    spec: AttentionSpec,
    query: Tensor,
    key: Tensor,
    query_BL: Tensor,
    key_S: Tensor,
    visible: Tensor | None,
    widths: Sequence[int],
) -> Tensor:
    """Scores plus bias, -inf where hidden, (B, H, L, S).

    `visible` is None if all pairs are visible. `widths` are the lengths of the runs of consecutive keys that are
    concatenated in `key` and `key_S`; a bias is evaluated for each run separately.
    """
    scores = spec.score.scores(query, key)
    if spec.bias is not None:
        scores = scores + _bias(spec.bias, query_BL, key_S, scores.dtype, widths)
    return scores if visible is None else torch.where(visible, scores, -torch.inf)


def _bias(bias: Bias, query_BL: Tensor, key_S: Tensor, dtype: torch.dtype, widths: Sequence[int]) -> Tensor:
    if len(widths) == 1:
        return bias.bias(query_BL, key_S, dtype)
    stops = list(accumulate(widths))
    runs = [slice(stop - width, stop) for stop, width in zip(stops, widths, strict=True)]
    rows = slice(0, query_BL.shape[1])
    parts = [slice_value(bias, rows, run).bias(query_BL, key_S[run], dtype) for run in runs]
    shape = torch.broadcast_shapes(*(x.shape[:-1] for x in parts))
    return torch.cat([x.expand(*shape, width) for x, width in zip(parts, widths, strict=True)], -1)


def with_prior(spec: AttentionSpec, weights: Tensor, query_BL: Tensor, key_S: Tensor) -> Tensor:
    """Weights times the normalizer's prior, if it has one."""
    if isinstance(spec.normalizer, Softmax) and spec.normalizer.prior is not None:
        return weights * spec.normalizer.prior.factor(query_BL, key_S, weights.dtype)
    return weights


def drawn(
    normalizer: Normalizer,
    seed: Tensor | None,
    batch: int,
    heads: int,
    rows: slice,
    runs: Sequence[slice],
    like: Tensor,
) -> Normalizer:
    """The normalizer with its noise for some query rows and runs of key rows, if it samples its weights."""
    if seed is None or not normalizer.draws:
        return normalizer
    words = [noise_words(seed, batch, heads, rows, run) for run in runs]
    return normalizer.drawn(words[0] if len(words) == 1 else torch.cat(words, -1), like.dtype)


def pick(normalizer: Hard, scores_BHLS: Tensor, value_BGSV: Tensor, factor_BHLS: Tensor | None = None) -> Tensor:
    """The value of each query's key, (B, H, L, V), times the key's factor; 0 for a query without a key.

    The same as `mix` of the weights, without the products.
    """
    index, exists = normalizer.choose(scores_BHLS)  # (B, H, L, 1)
    factor = None if factor_BHLS is None else factor_BHLS.gather(-1, index)
    return values_at(index, exists, value_BGSV, factor)


def values_at(index: Tensor, exists: Tensor, value_BGSV: Tensor, factor: Tensor | None) -> Tensor:
    """The values of one key a query, (B, H, L, V), times a factor; 0 for a query without a key.

    `index`, `exists` and `factor` are (B, H, L, 1).
    """
    (batch, heads, rows, _), (groups, dim) = index.shape, (value_BGSV.shape[1], value_BGSV.shape[3])
    flat = index.reshape(batch, groups, heads // groups * rows, 1).expand(-1, -1, -1, dim)
    output = value_BGSV.gather(2, flat).reshape(batch, heads, rows, dim)
    if factor is not None:
        output = output * factor
    return torch.where(exists, output, 0.0)


def mix(weights_BHLS: Tensor, value_BGSV: Tensor) -> Tensor:
    """Weighted sum of the values for each query, (B, H, L, V)."""
    return products(weights_BHLS, value_BGSV.transpose(-1, -2))


def shield(query: Tensor, key: Tensor, value: Tensor, visible: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Replace by 0 the queries that see no key and the keys that no query sees, which may hold anything, even NaN.

    Args:
        query: (B, H, L, E).
        key: (B, G, S, E).
        value: (B, G, S, V).
        visible: booleans (B or 1, H or 1, L, S).

    Returns:
        query, key, value, and a boolean mask of the queries that see a key, (B or 1, H or 1, L or 1, 1). The caller
        must set the other outputs to 0, so that their incoming gradient is dropped too.
    """
    sees = visible.any(-1, keepdim=True)
    is_seen = visible.any(-2)[..., None]  # (B or 1, H or 1, S, 1)
    groups = key.shape[1]
    if is_seen.shape[1] not in (1, groups):
        is_seen = is_seen.unflatten(1, (groups, -1)).any(2)
    return torch.where(sees, query, 0), torch.where(is_seen, key, 0), torch.where(is_seen, value, 0), sees
