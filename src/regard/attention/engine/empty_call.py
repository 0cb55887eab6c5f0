"""Empty calls: an input with a dimension of size 0.

As in PyTorch, a query without keys has output 0, and log-sum-exp -inf or the sink's; vectors of size 0 have score 0.
Calls without (query, key) pairs are handled here for all backends.
"""

from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor

from regard.attention.engine.call import Call
from regard.attention.normalizer import sink_of
from regard.attention.score import Dot
from regard.attention.spec import AttentionSpec
from regard.attention.summary import SummaryResult
from regard.attention.value import per_head

Run = Callable[[Call], tuple[Tensor, SummaryResult | None]]


def is_empty(call: Call) -> bool:
    """Whether any of the inputs is empty."""
    return 0 in call.query.shape or 0 in call.key.shape or call.value.shape[3] == 0


def has_pairs(call: Call) -> bool:
    """Whether the call has any (query, key) pair."""
    return 0 not in call.query.shape[:3] and 0 not in call.key.shape[:3]


def run_empty(call: Call, run: Run) -> tuple[Tensor, SummaryResult | None]:
    """Output and summaries of an empty call; `run` computes a call padded to size 1 if only vectors are empty."""
    query, key, value = call.query, call.key, call.value
    if not has_pairs(call):
        shape = (*query.shape[:3], value.shape[3])
        output, summary_result = query.new_zeros(shape), None if call.summary is None else _empty_summaries(call)
    else:
        spec, value_dim = call.spec, value.shape[3]
        if not (query.shape[3] and key.shape[3]):
            spec = AttentionSpec(**{**spec.arguments(), "score": Dot()})
            query, key = (x.new_zeros(*x.shape[:3], 1) for x in (query, key))
        value = value if value_dim else value.new_zeros(*value.shape[:3], 1)
        output, summary_result = run(call._replace(query=query, key=key, value=value, spec=spec))
        output = output[..., :value_dim]
    tensors = call.tensors
    for x in tensors:
        if x.requires_grad:  # connects x to the graph, with a gradient of 0
            output = output + x.flatten()[:0].sum().to(output.dtype)
    return output, summary_result


def _empty_summaries(call: Call) -> SummaryResult:
    """Summaries of a call without (query, key) pairs."""
    summary = call.summary
    if summary is None:
        return SummaryResult()
    batch, heads, rows, _ = call.query.shape
    columns = call.key.shape[2]

    def zeros(requested: bool, *sizes: int) -> Tensor | None:
        return call.query.new_zeros(batch, heads, *sizes, dtype=call.dtype) if requested else None

    top = (rows, summary.top_k)
    summary_result = SummaryResult(
        log_prob=zeros(summary.log_prob, rows),
        entropy=zeros(summary.entropy, rows),
        expected_key=zeros(summary.expected_key, rows),
        key_variance=zeros(summary.expected_key, rows),
        key_mass=zeros(summary.key_mass, columns),
        top_weights=zeros(summary.top_k > 0, *top),
        top_keys=call.query.new_full((batch, heads, *top), -1, dtype=torch.int64) if summary.top_k else None,
        grid=zeros(summary.grid is not None, *(summary.grid or ())),
        weights=zeros(summary.weights, rows, columns),
    )
    if not summary.log_sum_exp:
        return summary_result
    log_sum_exp = call.query.new_full((batch, heads, rows, 1), -torch.inf, dtype=call.dtype)
    sink = sink_of(call.spec.normalizer)
    if sink is not None:
        log_sum_exp = torch.as_tensor(per_head(sink, call.dtype)).expand_as(log_sum_exp)
    return replace(summary_result, log_sum_exp=log_sum_exp.squeeze(-1))
