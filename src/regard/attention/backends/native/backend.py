"""Backend `native`: C++ kernels (`regard.kernels`) on the CPU, in linear memory, forward and backward.

The kernels compute dot products and additive scores. Scores that are one of these for transformed queries and keys are
transformed first, by PyTorch operations, which carry the gradients. Higher derivatives, forward mode and `torch.func`
use the tiled computation of `tiled.py`.
"""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any, NamedTuple, final

import torch
from torch import Tensor

from regard import kernels
from regard.attention.backends.native.call import (
    CPU,
    NORMALIZERS,
    NOTHING,
    CompactCall,
    address,
    arguments,
    by_distance_table,
    spread_view,
    view_of,
)
from regard.attention.backends.native.choice import run_choice
from regard.attention.backends.native.huge_pages import empty
from regard.attention.backends.native.mask import (
    ALL,
    SIDE,
    NativeMask,
    Part,
    native_mask,
    native_parts,
    part_call,
    rows_of,
)
from regard.attention.backends.protocol import Cost, transform_refusals
from regard.attention.bias import Bias, TensorBias
from regard.attention.engine.call import Call
from regard.attention.engine.call_cache import FAST_PATHS, FastPath
from regard.attention.engine.custom_op import EAGER, run_as_op
from regard.attention.engine.tile_sum import alias, any_batched, any_dual, any_grad
from regard.attention.engine.tiled import by_tiles, compute
from regard.attention.engine.tracing import (
    constant_while_compiling,
    has_own_dispatch,
    is_recorded,
    is_transformed,
    vmapped,
)
from regard.attention.hard import Gumbel, Hard
from regard.attention.location_aware import LocationAware
from regard.attention.normalizer import Entmax, RowStats, Sigmoid, Softmax, Sparsemax, finite, sink_of
from regard.attention.patterns.pattern import Full
from regard.attention.prior import Gaussian
from regard.attention.score import Additive, Dot, Score
from regard.attention.spec import PLAIN, AttentionSpec
from regard.attention.summary import Summary, SummaryResult
from regard.attention.value import rebuild

MAX_BIAS_GRAD = 1 << 26  # elements of the gradient of a bias, stored for each sequence and head before it is summed


@final
class Native:
    """C++ kernels, compiled for several instruction sets, on the CPU."""

    name = "native"

    def refusals(self, call: Call) -> list[str]:
        spec, reasons = call.spec, []
        if (missing := _missing()) is not None:
            reasons.append(f"kernels: {missing}")
        reasons += transform_refusals()
        if call.query.device.type != "cpu":
            reasons.append(f"device: runs on the CPU only, not on {call.query.device}")
        if isinstance(spec.score, LocationAware):
            if spec.score.by_query:
                reasons.append(f"score: computes location features that all queries share only, not {spec.score}")
        elif not isinstance(spec.score, Additive) and type(spec.score).as_dot_product is Score.as_dot_product:
            reasons.append(f"score: computes dot products, Additive and LocationAware only, not {spec.score}")
        if type(spec.normalizer) not in NORMALIZERS:
            names = ", ".join(kind.__name__ for kind in NORMALIZERS)
            reasons.append(f"normalizer: computes {names} only, not {spec.normalizer}")
        elif isinstance(spec.normalizer, Softmax) and not isinstance(spec.normalizer.prior, Gaussian | None):
            reasons.append(f"normalizer: computes a Gaussian prior only, not {spec.normalizer.prior}")
        if isinstance(spec.normalizer, Hard):
            if isinstance(spec.normalizer.sample, Gumbel):
                reasons.append(f"normalizer: computes samples of one key only, not {spec.normalizer}")
            if spec.normalizer.noise is not None:
                reasons.append("normalizer: draws its noise from the seed only, not from a tensor")
            if call.summary is not None and call.summary.log_prob:
                reasons.append("summary: does not compute log_prob")
        if isinstance(spec.bias, TensorBias):
            numbers = call.query.shape[0] * call.query.shape[1] * spec.bias.tensor.shape[-1]
            numbers *= spec.bias.tensor.shape[-2] if spec.bias.tensor.dim() > 1 else 1
            if spec.bias.tensor.requires_grad and numbers > MAX_BIAS_GRAD:
                reasons.append(
                    f"bias: its gradient has {numbers} elements over sequences and heads; at most 2^26 are supported"
                )
        elif spec.bias is not None and type(spec.bias).by_offset is Bias.by_offset:
            reasons.append(f"bias: supports a tensor or a bias by distance only, not {spec.bias}")
        return reasons

    def cost(self, call: Call) -> Cost:
        schedule = call.spec.pattern.schedule(
            call.query.shape[2], call.key.shape[2], query_start=call.query_start, key_start=call.key_start, block=SIDE
        )
        numbers = SIDE * (4 * (call.query.shape[3] + call.value.shape[3]) + SIDE)
        return Cost(schedule.full_pairs + schedule.mixed_pairs, torch.get_num_threads() * numbers * call.dtype.itemsize)

    def run(self, call: Call) -> tuple[Tensor, SummaryResult | None]:
        if torch.compiler.is_compiling():
            return run_as_op(call, self.name)
        if is_recorded() or any(map(has_own_dispatch, call[:3])):
            return compute(call) if is_transformed() else run_as_op(call, self.name)
        return _eager(call)


@constant_while_compiling  # a compiler would trace into the import
def _missing() -> str | None:
    """Reason why the kernels are unavailable; None if they are available."""
    return kernels.missing()


def differentiates_by_tiles(call: Call) -> bool:
    """Whether gradients take the slower tiled computation: of summaries, and of softmax through a sampled key."""
    return call.summary is not None or (isinstance(call.spec.normalizer, Hard) and call.spec.normalizer.dense)


def _eager(call: Call) -> tuple[Tensor, SummaryResult | None]:
    if any(x.is_neg() for x in call[:3]):  # the negative bit is set: the memory has the opposite sign
        query, key, value = (x.resolve_neg() for x in call[:3])
        call = call._replace(query=query, key=key, value=value)
    inputs = call.tensors
    needs_grad = any_grad(inputs)
    if (
        any_dual(inputs)
        or torch._C._functorch.maybe_current_level() is not None
        or (needs_grad and differentiates_by_tiles(call))
    ):
        return compute(call)
    if call.spec is PLAIN and call.summary is None and not needs_grad:
        return CompactCall.of(call, NativeMask()).run(*inputs), None
    dot_call = _as_dot_products(call)
    if isinstance(call.spec.normalizer, Hard):
        output, summary_result = run_choice(dot_call)
        return output.to(call.query.dtype), summary_result
    result = None if needs_grad or sink_of(call.spec.normalizer) is not None else _single_pass(dot_call)
    output, summary_result = result or compute(dot_call, _output_and_stats, _summaries)
    return output.to(call.query.dtype), summary_result


EAGER["native"] = _eager


def _fast_path(call: Call) -> FastPath | None:
    """Fast path for calls with this signature that need no gradient: see `call_cache.py`."""
    spec = call.spec
    if not (isinstance(spec.score, Dot) and isinstance(spec.normalizer, Softmax)):
        return None
    if spec.normalizer.prior is not None or spec.bias is not None:
        return None
    parts = native_parts(call)
    if len(parts) > 1 or any(x is not None for x in parts[0].mask[3:]):
        return None
    compact = CompactCall.of(call, parts[0].mask)

    def run(query: Tensor, key: Tensor, value: Tensor) -> Tensor | None:
        return None if any_grad((query, key, value)) else compact.run(query, key, value)

    return run


FAST_PATHS["native"] = _fast_path


def _as_dot_products(call: Call) -> Call:
    """Equivalent call whose scores are dot products times a number, or additive."""
    score = call.spec.score
    if isinstance(score, Additive) or (isinstance(score, Dot) and not isinstance(score.scale, Tensor)):
        return call
    dtype = call.dtype  # float32 for half inputs, to avoid double rounding
    query, key, value = (x.to(dtype) for x in (call.query, call.key, call.value))
    if isinstance(score, LocationAware):
        return _with_score(call, query, score.located(key, query.shape[1]), value, Additive(score.vector))
    if not isinstance(call.spec.pattern, Full):
        query_seen, key_seen = _visible(call)
        query, key = torch.where(query_seen, query, 0), torch.where(key_seen, key, 0)
    pair = score.as_dot_product(query, key)
    if pair is None:  # refused before
        return call
    return _with_score(call, *pair, value, Dot(scale=1.0, softcap=score.softcap if isinstance(score, Dot) else None))


def _with_score(call: Call, query: Tensor, key: Tensor, value: Tensor, score: Score) -> Call:
    """Call with transformed inputs and another score; values are repeated where the keys are by query head now."""
    if key.shape[1] != value.shape[1]:
        value = value.repeat_interleave(key.shape[1] // value.shape[1], 1)
    return Call(query, key, value, AttentionSpec(**{**call.spec.arguments(), "score": score}), *call[4:])


def _output_and_stats(call: Call) -> tuple[Tensor, RowStats]:
    """Output and row stats of a call without sink."""
    inputs = call.tensors
    if any_grad(inputs):
        output, row_stats, offset = _Attention.apply(call, *inputs)  # type: ignore[no-untyped-call]
    else:
        with torch.no_grad():
            result = _forward_result(call, keep_sparse=False)
            output, row_stats, offset = result.output, result.row_stats, result.offset
    return output, RowStats(row_stats[..., :1], offset)


class _ForwardResult(NamedTuple):
    """Result of the forward pass, with what the backward pass needs."""

    output: Tensor
    row_stats: Tensor  # (B, H, L, 2): row max and offset
    offset: Tensor  # (B, H, L, 1)
    parts: list[Part]
    sparse: list[Tensor | None]  # sparse weights of each part, or None


def _forward_result(call: Call, *, keep_sparse: bool) -> _ForwardResult:
    """Run the forward pass.

    The kernels set the offset of a row without visible keys to -inf, which is valid for softmax only; for other
    normalizers it becomes 0. `keep_sparse`: whether to store the nonzero weights of a sparse normalizer, so that the
    backward pass does not recompute the scores where few weights are nonzero.
    """
    parts = native_parts(call)
    row_stats = _row_stats_buffer(call)
    keep_sparse = (
        keep_sparse and call.query.dtype == torch.float32 and isinstance(call.spec.normalizer, Entmax | Sparsemax)
    )
    sparse = [_sparse_buffer(call, part) if keep_sparse else None for part in parts]
    output = _forward(call, parts, row_stats, sparse)
    offset = row_stats[..., 1:].clone()
    offset = offset if isinstance(call.spec.normalizer, Softmax) else finite(offset)
    return _ForwardResult(output, row_stats, offset, parts, sparse)


def _sparse_buffer(call: Call, part: Part) -> Tensor:
    """Buffer for the sparse weights of all query blocks; not in huge pages, since most of it may stay untouched."""
    batch, heads, rows, _ = rows_of(call.query, part).shape
    return torch.empty(
        batch, heads, -(-rows // SIDE), kernels.module().SPARSE_WEIGHTS_BYTES, dtype=torch.uint8, device=CPU
    )


class _Attention(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, call: Call, *inputs: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        result = _forward_result(call, keep_sparse=True)
        ctx.call = call._replace(query=None, key=None, value=None)  # type: ignore[arg-type]
        ctx.parts, ctx.sparse_weights = result.parts, result.sparse
        ctx.mark_non_differentiable(result.row_stats)
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(*inputs, result.output, result.row_stats)
        return result.output, result.row_stats, result.offset

    @staticmethod
    def backward(ctx: Any, d_output: Tensor | None, _: None, d_offset: Tensor | None) -> tuple[Any, ...]:
        *inputs, output, row_stats = ctx.saved_tensors
        create_graph = torch.is_grad_enabled()  # second derivatives
        if create_graph or vmapped() or any_batched([g for g in (d_output, d_offset) if g is not None]):
            with torch.enable_grad():
                inputs = [alias(x) for x in inputs]
                tiled, row = by_tiles(_with_inputs(ctx.call, inputs))
            leaves = [x for x, needed in zip(inputs, ctx.needs_input_grad[1:], strict=True) if needed]
            live = [(x, g) for x, g in ((tiled, d_output), (row.offset, d_offset)) if g is not None and x.requires_grad]
            grads = iter(
                torch.autograd.grad([x for x, _ in live], leaves, [g.to(x.dtype) for x, g in live],
                                    create_graph=create_graph, allow_unused=True)
            )  # fmt: skip
            return (None, *(next(grads) if needed else None for needed in ctx.needs_input_grad[1:]))
        if d_output is None:
            d_output = torch.zeros_like(output)
        needed = ctx.needs_input_grad[1:]
        call = _with_inputs(ctx.call, inputs)
        return (None, *_backward(call, ctx.parts, ctx.sparse_weights, output, row_stats, d_output, d_offset, needed))


def _with_inputs(call: Call, inputs: Sequence[Tensor]) -> Call:
    """Copy of a call with other tensors: query, key, value and those held by its values."""
    query, key, value, *field_tensors = inputs
    return call._replace(query=query, key=key, value=value, spec=rebuild(call.spec, iter(field_tensors)))


def _single_pass(call: Call) -> tuple[Tensor, SummaryResult | None] | None:
    """Output and summaries from one pass over the scores; None if this takes two passes."""
    summary, parts = call.summary, native_parts(call)
    if summary is None:
        return _forward(call, parts, None, [None] * len(parts)), None
    if len(parts) > 1 or not _needs_scores(summary):
        return None
    output, row_stats, summary_result = _output_buffer(call), _row_stats_buffer(call), _summary_buffers(call, summary)
    _fill_summaries(call, summary, parts[0].mask, output, row_stats, summary_result)
    return output, replace(summary_result, log_sum_exp=row_stats.sum(-1)) if summary.log_sum_exp else summary_result


def _summaries(call: Call, summary: Summary, row: RowStats) -> SummaryResult:
    """Summaries from the row stats, without gradients."""
    summary_result = _summary_buffers(call, summary)
    if _needs_scores(summary):
        row_stats = torch.cat([row.max, row.offset], -1)
        _fill_summaries(call, summary, native_mask(call), None, row_stats, summary_result)
    return (
        replace(summary_result, log_sum_exp=(row.max + row.offset).squeeze(-1))
        if summary.log_sum_exp
        else summary_result
    )


def _needs_scores(summary: Summary) -> bool:
    """Whether a summary needs a pass over the scores; the log-sum-exp alone does not."""
    return bool(summary.sums or summary.merged)


def _summary_buffers(call: Call, summary: Summary) -> SummaryResult:
    """Output tensors for the kernels, which overwrite `weights` and add to the others."""
    (batch, heads, rows, _), columns = call.query.shape, call.key.shape[2]

    def zeros(requested: bool, *sizes: int, dtype: torch.dtype = call.dtype) -> Tensor | None:
        return torch.zeros(batch, heads, *sizes, dtype=dtype, device=CPU) if requested else None

    k, grid = summary.top_k, summary.grid or (0, 0)
    return SummaryResult(
        entropy=zeros(summary.entropy, rows),
        expected_key=zeros(summary.expected_key, rows),
        key_variance=zeros(summary.expected_key, rows),
        key_mass=zeros(summary.key_mass, columns),
        top_keys=zeros(k > 0, rows, k, dtype=torch.int64),
        top_weights=zeros(k > 0, rows, k),
        grid=zeros(summary.grid is not None, *grid),
        weights=empty(call.query, (batch, heads, rows, columns), call.dtype) if summary.weights else None,
    )


def _fill_summaries(
    call: Call,
    summary: Summary,
    mask: NativeMask,
    output: Tensor | None,
    row_stats: Tensor,
    sums: SummaryResult,
) -> None:
    """Fill the summaries; with an output, compute it and the row stats first, else the row stats are an input."""
    kernels.module().summarize(
        *arguments(call, mask, output, row_stats),
        address(sums.entropy), address(sums.expected_key), address(sums.key_variance), address(sums.key_mass),
        summary.top_k, address(sums.top_keys), address(sums.top_weights),
        address(sums.grid), *(summary.grid or (0, 0)), address(sums.weights), call.key_start,
    )  # fmt: skip


def _forward(call: Call, parts: list[Part], row_stats: Tensor | None, sparse: list[Tensor | None]) -> Tensor:
    output = _output_buffer(call)
    for part, part_sparse in zip(parts, sparse, strict=True):
        kernel_arguments = arguments(part_call(call, part), part.mask, rows_of(output, part), rows_of(row_stats, part))
        kernels.module().forward(*kernel_arguments, address(part_sparse), NOTHING)
    return output


def _output_buffer(call: Call) -> Tensor:
    batch, heads, rows, _ = call.query.shape
    return empty(call.query, (batch, heads, rows, call.value.shape[3]))


def _row_stats_buffer(call: Call) -> Tensor:
    """Uninitialized buffer of row max and offset, (B, H, L, 2)."""
    return call.query.new_empty(*call.query.shape[:3], 2, dtype=call.dtype)


def _backward(
    call: Call,
    parts: list[Part],
    sparse: list[Tensor | None],
    output: Tensor,
    row_stats: Tensor,
    d_output: Tensor,
    d_offset: Tensor | None,
    needed: Sequence[bool],
) -> Iterator[Tensor | None]:
    """Gradients of query, key, value and the tensors held by the values, in the order of `spec.tensor_fields`."""
    spec, dtype = call.spec, call.dtype
    (batch, heads, rows, _), columns = call.query.shape, call.key.shape[2]
    d_query, d_key, d_value = (empty(x, x.shape) for x in (call.query, call.key, call.value))
    normalizer, bias = spec.normalizer, spec.bias
    counts = [0 if part is None else len(part.tensor_fields) for part in (spec.score, normalizer, spec.pattern, bias)]
    start = 3 + counts[0]
    normalizer_needed, bias_needed = needed[start : start + counts[1]], needed[start + counts[1] + counts[2] :]
    d_vector = d_dense = d_distance = d_parameter = d_center = d_sigma = None
    if any(needed[3:start]):
        d_vector = torch.zeros(batch, heads, call.query.shape[3], dtype=dtype, device=CPU)
    if any(bias_needed):
        if isinstance(bias, TensorBias):
            shape = (1,) * (4 - bias.tensor.dim()) + tuple(bias.tensor.shape)
            d_dense = torch.zeros(batch, heads, *shape[2:], dtype=dtype, device=CPU)
        else:
            d_distance = torch.zeros(batch, heads, rows + columns - 1, dtype=dtype, device=CPU)
    if any(normalizer_needed):
        if isinstance(normalizer, Sigmoid | Entmax):
            d_parameter = torch.zeros(batch, heads, dtype=dtype, device=CPU)
        else:
            d_center, d_sigma = (torch.zeros(batch, heads, rows, dtype=dtype, device=CPU) for _ in range(2))
    d_offset = None if d_offset is None else d_offset.to(dtype)
    value_grads = (
        NOTHING if d_dense is None else spread_view(d_dense, rows, columns),
        NOTHING if d_distance is None else (d_distance.data_ptr(), *d_distance.stride()[:2], 0, 1),
        address(d_vector), address(d_parameter), address(d_center), address(d_sigma),
    )  # fmt: skip
    for part, part_sparse in zip(parts, sparse, strict=True):
        key_grads = (view_of(x if part.rows is ALL else x[:, :, part.columns]) for x in (d_key, d_value))
        kernels.module().backward(
            *arguments(part_call(call, part), part.mask, rows_of(output, part), rows_of(row_stats, part)),
            *(view_of(rows_of(x, part)) for x in (d_output, d_offset, d_query)), *key_grads, *value_grads,
            address(part_sparse),
        )  # fmt: skip
    yield from (d_query, d_key, d_value)
    yield from (None if d_vector is None else _summed(d_vector, field.tensor) for field in spec.score.tensor_fields)
    if d_parameter is not None:
        yield _summed(d_parameter, normalizer.tensor_fields[0].tensor)
    elif d_center is not None and d_sigma is not None and isinstance(normalizer, Softmax):
        prior = normalizer.prior
        for field in normalizer.tensor_fields:
            center = isinstance(prior, Gaussian) and field.tensor is prior.center
            yield _summed(d_center if center else d_sigma.sum(-1), field.tensor)
    else:
        yield from (None for _ in range(counts[1]))
    yield from (None for _ in range(counts[2]))
    if d_dense is not None and isinstance(bias, TensorBias):
        yield _summed(d_dense, bias.tensor)
    elif d_distance is not None and bias is not None:
        with torch.enable_grad():
            leaves = [field.tensor.detach().requires_grad_() for field in bias.tensor_fields]
            table = by_distance_table(call, rebuild(bias, iter(leaves)))
            yield from torch.autograd.grad(table, leaves, d_distance.sum_to_size(table.shape))
    else:
        yield from (None for _ in range(counts[3]))


def _summed(gradient: Tensor, tensor: Any) -> Tensor:
    """Gradient summed to the shape of a tensor that was broadcast, in its dtype."""
    shape = (1,) * (gradient.dim() - tensor.dim()) + tuple(tensor.shape)
    return gradient.sum_to_size(shape).reshape(tensor.shape).to(tensor.dtype)


def _visible(call: Call) -> tuple[Tensor, Tensor]:
    """Masks of the queries that see a key (B, H, L, 1) and of the keys seen by a query of their group (B, G, S, 1)."""
    mask = native_mask(call)
    (batch, heads, rows, _), (_, groups, columns, _) = call.query.shape, call.key.shape
    queries, keys = (
        torch.zeros(batch, heads, rows, 1, dtype=torch.bool, device=CPU),
        torch.zeros(batch, groups, columns, 1, dtype=torch.bool, device=CPU),
    )
    kernel_arguments = arguments(call._replace(spec=AttentionSpec(pattern=call.spec.pattern)), mask, None, None)
    kernels.module().visibility(*kernel_arguments, queries.data_ptr(), keys.data_ptr())
    return queries, keys
