"""Summaries of calls of attention, in memory that grows with queries and keys but not with their product.

One pass of the operator gives the output again, which says how far the weights are those of the model, and the sum of
each row's weights by bins of keys: the values are extended by the bins' indicators, since an output is linear in them.

Layout: B sequences, H heads, L queries, S keys, c bins of keys, k largest weights.
"""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from regard.attention.attend import attend
from regard.attention.bias import Bias, TensorBias
from regard.attention.engine.observer import unobserved
from regard.attention.patterns.pattern import Pattern
from regard.attention.summary import Frame, RunningStats, Summary, SummaryResult, collect, contributions
from regard.attention.value import slice_value
from regard.lens.capture.call import AttentionCall, OperatorCall, WeightsCall, wide
from regard.lens.view import bin_index, binned

CHUNK = 2**26  # bytes of what is made for a part of the queries at a time


class Rows(NamedTuple):
    """The summaries of some queries."""

    bins: Tensor  # (B, H, rows, c), the weight of each row in each bin of keys
    summary_result: SummaryResult  # entropy, expected key, key mass, top keys and weights
    output: Tensor | None  # (B, H, rows, V), the weights' mixture of the values


def summarize(call: AttentionCall, top: int, edges: Sequence[int]) -> Iterator[tuple[slice, Rows]]:
    """The summaries of a call, some queries at a time.

    Args:
        call: with inputs, or rows of weights.
        top: largest weights of each query.
        edges: of the bins of keys.

    Yields:
        Which queries, and their summaries, in float32 or float64.
    """
    batch, heads, queries, keys = call.shape
    summary = Summary(entropy=True, expected_key=True, key_mass=True, top_k=min(top, keys))
    features = len(edges) + call.value.shape[-1] if isinstance(call, OperatorCall) else 4 * keys
    for part in parts(queries, CHUNK // (4 * max(1, batch * heads * features))):
        if isinstance(call, OperatorCall):
            yield part, _by_operator(call, part, summary, edges)
        else:
            yield part, _by_rows(call, part, summary, edges)


def parts(length: int, size: int) -> Iterator[slice]:
    """Slices of at most `size`, and at least 1, that make up a length."""
    size = max(1, size)
    return (slice(start, min(start + size, length)) for start in range(0, length, size))


def weights_of(call: AttentionCall, queries: Tensor) -> Tensor:
    """The weights of chosen queries.

    Args:
        call: with inputs, or rows of weights.
        queries: which, rising.

    Returns:
        (B, H, number of queries, S).
    """
    runs = torch.tensor_split(queries, (queries.diff() != 1).nonzero().flatten() + 1)
    parts = [_weights(call, slice(int(run[0]), int(run[-1]) + 1)) for run in runs]
    return parts[0] if len(parts) == 1 else torch.cat(parts, 2)


def _weights(call: AttentionCall, part: slice) -> Tensor:
    if isinstance(call, WeightsCall):
        return wide(call.rows(part))
    summary_result = _attend(call, part, wide(call.value), Summary(weights=True))[1]
    return summary_result.weights  # type: ignore[return-value]


def _attend(call: OperatorCall, part: slice, value: Tensor, summary: Summary) -> tuple[Tensor, SummaryResult]:
    """The operator for some queries of a call."""
    arguments = dict(call.arguments)
    query = wide(call.query)
    if part != slice(0, call.shape[2]):
        for name, x in arguments.items():
            x = TensorBias(x) if name == "bias" and isinstance(x, Tensor) else x
            if isinstance(x, Pattern | Bias):
                arguments[name] = slice_value(x, part, slice(0, call.shape[3]))
        query = query[:, :, part]
        arguments["query_start"] = call.query_start + part.start
    with unobserved(), torch.autocast(query.device.type, enabled=False):
        found: tuple[Tensor, SummaryResult] = attend(query, wide(call.key), value, summary=summary, **arguments)
    return found


def _by_operator(call: OperatorCall, part: slice, summary: Summary, edges: Sequence[int]) -> Rows:
    value = wide(call.value)
    batch, groups, keys, features = value.shape
    indicators = torch.nn.functional.one_hot(bin_index(keys, edges, value.device), len(edges) - 1).to(value.dtype)
    extended = torch.cat([value, indicators.expand(batch, groups, keys, len(edges) - 1)], -1)
    output, summary_result = _attend(call, part, extended, summary)
    return Rows(output[..., features:], summary_result, output[..., :features])


def _by_rows(call: WeightsCall, part: slice, summary: Summary, edges: Sequence[int]) -> Rows:
    weights = wide(call.rows(part))
    batch, heads, rows, keys = weights.shape
    frame = Frame(slice(0, rows), slice(0, keys), rows, keys, call.key_start)
    running = RunningStats(summary, batch, heads, rows, weights)
    running.add(weights, frame)
    summary_result = collect(summary, contributions(summary, weights, frame), running, None)
    return Rows(binned(weights, range(rows + 1), edges), summary_result, _mixture(weights, call.value))


def _mixture(weights: Tensor, value: Tensor | None) -> Tensor | None:
    """The weights' mixture of the values of their key head."""
    if value is None:
        return None
    groups = value.shape[1]
    by_group = weights.unflatten(1, (groups, weights.shape[1] // groups))
    return (by_group @ value.to(weights.dtype)[:, :, None]).flatten(1, 2)
