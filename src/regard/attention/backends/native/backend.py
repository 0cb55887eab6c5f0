"""The C++ kernels (`regard.kernels`), on the CPU: exact, in linear memory, forward and backward.

A kernel takes plain dot products. Scores that are such products after a linear step are brought to that form first, by
PyTorch's own operations, which carry their gradients. Derivatives beyond the first, forward mode and `torch.func` go
through the tiles of `tiled.py`.
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
from regard.attention.backends.native.huge_pages import empty
from regard.attention.backends.native.mask import ALL, SIDE, NativeMask, Part, native_mask, native_parts
from regard.attention.backends.protocol import Cost, transform_refusals
from regard.attention.bias import Bias, TensorBias
from regard.attention.engine.call import Call
from regard.attention.engine.call_cache import SHORTCUTS, Shortcut
from regard.attention.engine.custom_op import EAGER, run_as_op
from regard.attention.engine.tile_sum import alias, any_batched, any_dual, any_grad
from regard.attention.engine.tiled import by_tiles, compute
from regard.attention.engine.tracing import constant_while_compiling, recorded, transformed, vmapped, wrapped
from regard.attention.normalizer import Entmax, Sigmoid, Softmax, Sparsemax, Statistic, finite, sink_of
from regard.attention.patterns.pattern import Full
from regard.attention.prior import Gaussian
from regard.attention.score import Additive, Dot, Score
from regard.attention.spec import PLAIN, AttentionSpec
from regard.attention.summary import Seen, Summary
from regard.attention.value import rebuild

MOST_BIAS = 1 << 26  # numbers of a bias's gradient, which is kept for each head and sequence before it is added up


@final
class Native:
    """C++ kernels for the processor at hand."""

    name = "native"

    def refusals(self, call: Call) -> list[str]:
        spec, reasons = call.spec, []
        if (missing := _missing()) is not None:
            reasons.append(f"kernels: {missing}")
        reasons += transform_refusals()
        if call.query.device.type != "cpu":
            reasons.append(f"device: runs on the CPU only, not on {call.query.device}")
        if not isinstance(spec.score, Additive) and type(spec.score).factors is Score.factors:
            reasons.append(f"score: computes dot products and Additive only, not {spec.score}")
        if type(spec.normalizer) not in NORMALIZERS:
            names = ", ".join(kind.__name__ for kind in NORMALIZERS)
            reasons.append(f"normalizer: computes {names} only, not {spec.normalizer}")
        elif isinstance(spec.normalizer, Softmax) and not isinstance(spec.normalizer.prior, Gaussian | None):
            reasons.append(f"normalizer: computes a Gaussian prior only, not {spec.normalizer.prior}")
        if isinstance(spec.bias, TensorBias):
            numbers = call.query.shape[0] * call.query.shape[1] * spec.bias.tensor.shape[-1]
            numbers *= spec.bias.tensor.shape[-2] if spec.bias.tensor.dim() > 1 else 1
            if spec.bias.tensor.requires_grad and numbers > MOST_BIAS:
                reasons.append(f"bias: its gradient takes {numbers} numbers, for each head and sequence; at most 2^26")
        elif spec.bias is not None and type(spec.bias).by_offset is Bias.by_offset:
            reasons.append(f"bias: adds a tensor or numbers by distance only, not {spec.bias}")
        return reasons

    def cost(self, call: Call) -> Cost:
        schedule = call.spec.pattern.schedule(
            call.query.shape[2], call.key.shape[2], query_start=call.query_start, key_start=call.key_start, block=SIDE
        )
        numbers = SIDE * (4 * (call.query.shape[3] + call.value.shape[3]) + SIDE)
        return Cost(schedule.full_pairs + schedule.mixed_pairs, torch.get_num_threads() * numbers * call.dtype.itemsize)

    def run(self, call: Call) -> tuple[Tensor, Seen | None]:
        if torch.compiler.is_compiling():
            return run_as_op(call, self.name)
        if recorded() or any(map(wrapped, call[:3])):
            return compute(call) if transformed() else run_as_op(call, self.name)
        return _eager(call)


@constant_while_compiling  # a compiler would look into the import
def _missing() -> str | None:
    """Why the kernels are not there; None if they are."""
    return kernels.missing()


def _eager(call: Call) -> tuple[Tensor, Seen | None]:
    if any(x.is_neg() for x in call[:3]):  # what lies in memory has the other sign
        query, key, value = (x.resolve_neg() for x in call[:3])
        call = call._replace(query=query, key=key, value=value)
    inputs = call.tensors
    graded = any_grad(inputs)
    if (
        any_dual(inputs)
        or torch._C._functorch.maybe_current_level() is not None
        or (graded and call.summary is not None)
    ):
        return compute(call)
    if call.spec is PLAIN and call.summary is None and not graded:
        return CompactCall.of(call, NativeMask()).run(*inputs), None
    plain = _with_products(call)
    fused = None if graded or sink_of(call.spec.normalizer) is not None else _one_pass(plain)
    output, seen = fused or compute(plain, _core, _summaries)
    return output.to(call.query.dtype), seen


EAGER["native"] = _eager


def _shortcut(call: Call) -> Shortcut | None:
    """For calls like this one that want no gradients: see `call_cache.py`."""
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
        graded = any_grad((query, key, value))
        return None if graded else compact.run(query, key, value)

    return run


SHORTCUTS["native"] = _shortcut


def _with_products(call: Call) -> Call:
    """The same attention, its scores as plain dot products times a number."""
    score = call.spec.score
    if isinstance(score, Additive) or (isinstance(score, Dot) and not isinstance(score.scale, Tensor)):
        return call
    dtype = call.dtype  # half inputs are taken as float32, so that nothing is rounded twice
    query, key, value = (x.to(dtype) for x in (call.query, call.key, call.value))
    if not isinstance(call.spec.pattern, Full):
        query_seen, key_seen = _seen(call)
        query, key = torch.where(query_seen, query, 0), torch.where(key_seen, key, 0)
    factors = score.factors(query, key)
    if factors is None:  # refused
        return call
    query, key = factors
    if key.shape[1] != value.shape[1]:
        value = value.repeat_interleave(key.shape[1] // value.shape[1], 1)
    plain = Dot(scale=1.0, softcap=score.softcap if isinstance(score, Dot) else None)
    return Call(query, key, value, AttentionSpec(**{**call.spec.arguments(), "score": plain}), *call[4:])


def _core(call: Call) -> tuple[Tensor, Statistic]:
    """Output, and each row's max and log-sum; softmax has no sink here."""
    inputs = call.tensors
    if any_grad(inputs):
        output, row_max_log_sum, level = _Attention.apply(call, *inputs)  # type: ignore[no-untyped-call]
    else:
        with torch.no_grad():
            computed = _computed(call, list_sparse=False)
            output, row_max_log_sum, level = computed.output, computed.row_max_log_sum, computed.level
    return output, Statistic(row_max_log_sum[..., :1], level)


class _Computed(NamedTuple):
    """Results of the forward pass that the backward pass reads."""

    output: Tensor
    row_max_log_sum: Tensor  # (B, H, L, 2), see `Problem` in kernels/problem.hpp
    level: Tensor  # (B, H, L, 1): the log-sum alone
    parts: list[Part]
    sparse_weights: list[Tensor | None]  # one for each part: `SparseWeights` in kernels/problem.hpp


def _computed(call: Call, *, list_sparse: bool) -> _Computed:
    """Forward pass with the values that the backward pass needs.

    The kernels mark a row that sees nothing by a log-sum of -inf, which only softmax's formula can take.

    Args:
        list_sparse: whether to list sparse weights, so that the backward pass recomputes no scores where there are few.
    """
    parts = native_parts(call)
    row_max_log_sum = _row_max_log_sum(call)
    list_sparse = (
        list_sparse and call.query.dtype == torch.float32 and isinstance(call.spec.normalizer, Entmax | Sparsemax)
    )
    sparse_weights = [_sparse_weights(call, part) if list_sparse else None for part in parts]
    output = _forward(call, parts, row_max_log_sum, sparse_weights)
    level = row_max_log_sum[..., 1:].clone()
    level = level if isinstance(call.spec.normalizer, Softmax) else finite(level)
    return _Computed(output, row_max_log_sum, level, parts, sparse_weights)


def _sparse_weights(call: Call, part: Part) -> Tensor:
    """Buffer for the sparse weights of all blocks of queries; not in huge pages, as most of it may stay untouched."""
    batch, heads, rows, _ = _rows(call.query, part).shape
    return torch.empty(
        batch, heads, -(-rows // SIDE), kernels.module().SPARSE_WEIGHTS_BYTES, dtype=torch.uint8, device=CPU
    )


class _Attention(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, call: Call, *inputs: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        computed = _computed(call, list_sparse=True)
        ctx.call = call._replace(query=None, key=None, value=None)  # type: ignore[arg-type]
        ctx.parts, ctx.sparse_weights = computed.parts, computed.sparse_weights
        ctx.mark_non_differentiable(computed.row_max_log_sum)
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(*inputs, computed.output, computed.row_max_log_sum)
        return computed.output, computed.row_max_log_sum, computed.level

    @staticmethod
    def backward(ctx: Any, d_output: Tensor | None, _: None, d_level: Tensor | None) -> tuple[Any, ...]:
        *inputs, output, row_max_log_sum = ctx.saved_tensors
        again = torch.is_grad_enabled()  # the gradient is to be differentiated itself
        if again or vmapped() or any_batched([g for g in (d_output, d_level) if g is not None]):
            with torch.enable_grad():
                inputs = [alias(x) for x in inputs]
                tiled, row = by_tiles(_with_inputs(ctx.call, inputs))
            leaves = [x for x, needed in zip(inputs, ctx.needs_input_grad[1:], strict=True) if needed]
            live = [(x, g) for x, g in ((tiled, d_output), (row.level, d_level)) if g is not None and x.requires_grad]
            gradients = iter(
                torch.autograd.grad([x for x, _ in live], leaves, [g.to(x.dtype) for x, g in live],
                                    create_graph=again, allow_unused=True)
            )  # fmt: skip
            return (None, *(next(gradients) if needed else None for needed in ctx.needs_input_grad[1:]))
        if d_output is None:
            d_output = torch.zeros_like(output)
        needed = ctx.needs_input_grad[1:]
        call = _with_inputs(ctx.call, inputs)
        return (
            None,
            *_backward(call, ctx.parts, ctx.sparse_weights, output, row_max_log_sum, d_output, d_level, needed),
        )


def _with_inputs(call: Call, inputs: Sequence[Tensor]) -> Call:
    """The call with other tensors: query, key, value and what its values hold."""
    query, key, value, *held = inputs
    return call._replace(query=query, key=key, value=value, spec=rebuild(call.spec, iter(held)))


def _one_pass(call: Call) -> tuple[Tensor, Seen | None] | None:
    """Output and summary in one pass over the scores; None where the summary needs a pass of its own."""
    summary, parts = call.summary, native_parts(call)
    if summary is None:
        return _forward(call, parts, None, [None] * len(parts)), None
    if len(parts) > 1 or not _needs_scores(summary):
        return None
    output, row_max_log_sum, seen = _output(call), _row_max_log_sum(call), _empty_seen(call, summary)
    _summarize(call, summary, parts[0].mask, output, row_max_log_sum, seen)
    return output, replace(seen, log_sum_exp=row_max_log_sum.sum(-1)) if summary.log_sum_exp else seen


def _summaries(call: Call, summary: Summary, row: Statistic) -> Seen:
    """Summary from known row max and log-sum, without gradients."""
    seen = _empty_seen(call, summary)
    if _needs_scores(summary):
        row_max_log_sum = torch.cat([row.shift, row.level], -1)
        _summarize(call, summary, native_mask(call), None, row_max_log_sum, seen)
    return replace(seen, log_sum_exp=(row.shift + row.level).squeeze(-1)) if summary.log_sum_exp else seen


def _needs_scores(summary: Summary) -> bool:
    """Whether a summary needs a pass over the scores."""
    return bool(summary.sums or summary.merged)


def _empty_seen(call: Call, summary: Summary) -> Seen:
    """Buffers of a summary: the kernels write all of the weights and add to the rest, which is zero."""
    (batch, heads, rows, _), columns = call.query.shape, call.key.shape[2]

    def buffer(needed: bool, *sizes: int, dtype: torch.dtype = call.dtype) -> Tensor | None:
        return torch.zeros(batch, heads, *sizes, dtype=dtype, device=CPU) if needed else None

    k, grid = summary.top_k, summary.grid or (0, 0)
    return Seen(
        entropy=buffer(summary.entropy, rows),
        expected_key=buffer(summary.expected_key, rows),
        key_variance=buffer(summary.expected_key, rows),
        key_mass=buffer(summary.key_mass, columns),
        top_keys=buffer(k > 0, rows, k, dtype=torch.int64),
        top_weights=buffer(k > 0, rows, k),
        grid=buffer(summary.grid is not None, *grid),
        weights=empty(call.query, (batch, heads, rows, columns), call.dtype) if summary.weights else None,
    )


def _summarize(
    call: Call, summary: Summary, mask: NativeMask, output: Tensor | None, row_max_log_sum: Tensor, seen: Seen
) -> None:
    """Compute a summary into `seen`; with an output, compute output, row max and log-sum first."""
    kernels.module().summarize(
        *arguments(call, mask, output, row_max_log_sum),
        address(seen.entropy), address(seen.expected_key), address(seen.key_variance), address(seen.key_mass),
        summary.top_k, address(seen.top_keys), address(seen.top_weights),
        address(seen.grid), *(summary.grid or (0, 0)), address(seen.weights), call.key_start,
    )  # fmt: skip


def _forward(
    call: Call, parts: list[Part], row_max_log_sum: Tensor | None, sparse_weights: list[Tensor | None]
) -> Tensor:
    output = _output(call)
    for part, part_weights in zip(parts, sparse_weights, strict=True):
        native_arguments = arguments(_of(call, part), part.mask, _rows(output, part), _rows(row_max_log_sum, part))
        kernels.module().forward(*native_arguments, address(part_weights))
    return output


def _output(call: Call) -> Tensor:
    batch, heads, rows, _ = call.query.shape
    return empty(call.query, (batch, heads, rows, call.value.shape[3]))


def _row_max_log_sum(call: Call) -> Tensor:
    """Buffer for each row's max and log-sum."""
    return call.query.new_empty(*call.query.shape[:3], 2, dtype=call.dtype)


def _of(call: Call, part: Part) -> Call:
    """The call restricted to a part."""
    if part.rows is ALL:
        return call
    key, value = (x[:, :, part.columns] for x in (call.key, call.value))
    return call._replace(query=call.query[:, :, part.rows], key=key, value=value)


def _rows(x: Any, part: Part) -> Any:
    """A part's rows of a tensor (B, H, L, ...); None of None."""
    return x if x is None or part.rows is ALL else x[:, :, part.rows]


def _backward(
    call: Call,
    parts: list[Part],
    sparse_weights: list[Tensor | None],
    output: Tensor,
    row_max_log_sum: Tensor,
    d_output: Tensor,
    d_level: Tensor | None,
    needed: Sequence[bool],
) -> Iterator[Tensor | None]:
    """The gradients of query, key, value and what the values hold, in the order of `spec.held`."""
    spec, dtype = call.spec, call.dtype
    (batch, heads, rows, _), columns = call.query.shape, call.key.shape[2]
    d_query, d_key, d_value = (empty(x, x.shape) for x in (call.query, call.key, call.value))
    normalizer, bias = spec.normalizer, spec.bias
    counts = [0 if part is None else len(part.held) for part in (spec.score, normalizer, spec.pattern, bias)]
    at = 3 + counts[0]
    of_normalizer, of_bias = needed[at : at + counts[1]], needed[at + counts[1] + counts[2] :]
    d_vector = d_dense = d_distance = d_parameter = d_center = d_sigma = None
    if any(needed[3:at]):
        d_vector = torch.zeros(batch, heads, call.query.shape[3], dtype=dtype, device=CPU)
    if any(of_bias):
        if isinstance(bias, TensorBias):
            shape = (1,) * (4 - bias.tensor.dim()) + tuple(bias.tensor.shape)
            d_dense = torch.zeros(batch, heads, *shape[2:], dtype=dtype, device=CPU)
        else:
            d_distance = torch.zeros(batch, heads, rows + columns - 1, dtype=dtype, device=CPU)
    if any(of_normalizer):
        if isinstance(normalizer, Sigmoid | Entmax):
            d_parameter = torch.zeros(batch, heads, dtype=dtype, device=CPU)
        else:
            d_center, d_sigma = (torch.zeros(batch, heads, rows, dtype=dtype, device=CPU) for _ in range(2))
    d_level = None if d_level is None else d_level.to(dtype)
    other_gradients = (
        NOTHING if d_dense is None else spread_view(d_dense, rows, columns),
        NOTHING if d_distance is None else (d_distance.data_ptr(), *d_distance.stride()[:2], 0, 1),
        address(d_vector), address(d_parameter), address(d_center), address(d_sigma),
    )  # fmt: skip
    for part, part_weights in zip(parts, sparse_weights, strict=True):
        of_keys = (view_of(x if part.rows is ALL else x[:, :, part.columns]) for x in (d_key, d_value))
        kernels.module().backward(
            *arguments(_of(call, part), part.mask, _rows(output, part), _rows(row_max_log_sum, part)),
            view_of(_rows(d_output, part)), view_of(_rows(d_level, part)), view_of(_rows(d_query, part)), *of_keys,
            *other_gradients, address(part_weights),
        )  # fmt: skip
    yield from (d_query, d_key, d_value)
    yield from (None if d_vector is None else _summed(d_vector, leaf.tensor) for leaf in spec.score.held)
    if d_parameter is not None:
        yield _summed(d_parameter, normalizer.held[0].tensor)
    elif d_center is not None and d_sigma is not None and isinstance(normalizer, Softmax):
        prior = normalizer.prior
        for leaf in normalizer.held:
            center = isinstance(prior, Gaussian) and leaf.tensor is prior.center
            yield _summed(d_center if center else d_sigma.sum(-1), leaf.tensor)
    else:
        yield from (None for _ in range(counts[1]))
    yield from (None for _ in range(counts[2]))
    if d_dense is not None and isinstance(bias, TensorBias):
        yield _summed(d_dense, bias.tensor)
    elif d_distance is not None and bias is not None:
        with torch.enable_grad():
            leaves = [leaf.tensor.detach().requires_grad_() for leaf in bias.held]
            table = by_distance_table(call, rebuild(bias, iter(leaves)))
            yield from torch.autograd.grad(table, leaves, d_distance.sum_to_size(table.shape))
    else:
        yield from (None for _ in range(counts[3]))


def _summed(gradient: Tensor, of: Any) -> Tensor:
    """A gradient summed to the shape of what was broadcast, in its dtype."""
    shape = (1,) * (gradient.dim() - of.dim()) + tuple(of.shape)
    return gradient.sum_to_size(shape).reshape(of.shape).to(of.dtype)


def _seen(call: Call) -> tuple[Tensor, Tensor]:
    """Queries that see some key (B, H, L, 1), and keys that some query of their group sees (B, G, S, 1)."""
    mask = native_mask(call)
    (batch, heads, rows, _), (_, groups, columns, _) = call.query.shape, call.key.shape
    queries, keys = (
        torch.zeros(batch, heads, rows, 1, dtype=torch.bool, device=CPU),
        torch.zeros(batch, groups, columns, 1, dtype=torch.bool, device=CPU),
    )
    native_arguments = arguments(call._replace(spec=AttentionSpec(pattern=call.spec.pattern)), mask, None, None)
    kernels.module().visibility(*native_arguments, queries.data_ptr(), keys.data_ptr())
    return queries, keys
