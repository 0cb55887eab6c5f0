"""Calls whose normalizer chooses one key a row: the kernel finds the keys, and values, gradients and summaries follow.

Gradients go to the chosen values alone, through PyTorch's own gather, to any order.
"""

from typing import cast

import torch
from torch import Tensor
from torch.nn import functional

from regard import kernels
from regard.attention.backends.native.call import CPU, NOTHING, arguments
from regard.attention.backends.native.huge_pages import empty
from regard.attention.backends.native.mask import ALL, Part, native_parts, part_call, rows_of
from regard.attention.dropout import keep_scale_at
from regard.attention.engine.call import Call
from regard.attention.engine.formula import values_at
from regard.attention.engine.tile_sum import any_grad
from regard.attention.summary import Summary, SummaryResult, bin_shares


def run_choice(call: Call) -> tuple[Tensor, SummaryResult | None]:
    """Output (B, H, L, V) in the dtype of the query, and the requested summaries, without gradients of summaries."""
    batch, heads, rows, _ = call.query.shape
    differentiable = any_grad([call.value])
    keys = output = result = None
    if differentiable or call.summary is not None:
        keys = torch.empty(batch, heads, rows, dtype=torch.int64, device=CPU)
    if not differentiable:
        output = empty(call.query, (batch, heads, rows, call.value.shape[3]))
    with torch.no_grad():
        for part in native_parts(call):
            _choose(call, part, output, keys)
    if keys is not None and call.summary is not None:
        result = _summaries(call, call.summary, keys)
    if keys is not None and output is None:
        output = _values_at(call, keys)
    return cast(Tensor, output), result


def _choose(call: Call, part: Part, output: Tensor | None, keys: Tensor | None) -> None:
    """Run the kernel for a part of a call: fills the output and the columns of the chosen keys, -1 for none."""
    part_keys = rows_of(keys, part)
    chosen = NOTHING if part_keys is None else (part_keys.data_ptr(), *part_keys.stride(), 0)
    kernels.module().forward(*arguments(part_call(call, part), part.mask, rows_of(output, part), None), 0, chosen)
    if part_keys is not None and part.rows is not ALL:  # from columns of the part to those of the call
        first, step = part.columns.start, part.columns.step
        part_keys.copy_(torch.where(part_keys < 0, part_keys, part_keys * step + first))


def _values_at(call: Call, keys_BHL: Tensor) -> Tensor:
    """The values of the chosen keys times their factors of dropout, differentiable by the values."""
    exists, index = (keys_BHL >= 0)[..., None], keys_BHL.clamp(min=0)[..., None]
    factor = None
    if call.seed is not None and call.spec.dropout:
        factor = keep_scale_at(call.spec.dropout, call.seed, index[..., 0], call.dtype)[..., None]
    return values_at(index, exists, call.value.to(call.dtype), factor).to(call.query.dtype)


def _summaries(call: Call, summary: Summary, keys_BHL: Tensor) -> SummaryResult:
    """Summaries of weights that are 1 at one key a row, -1 for a row without a key."""
    (batch, heads, rows), columns, dtype = keys_BHL.shape, call.key.shape[2], call.dtype
    exists, index = keys_BHL >= 0, keys_BHL.clamp(min=0)
    one, position = exists.to(dtype), torch.where(exists, keys_BHL + call.key_start, 0)
    top_keys = torch.where(exists, position, -1)[..., None]
    rest = max(summary.top_k - 1, 0)
    grid = weights = None
    if summary.grid is not None:
        of_rows, of_columns = (
            bin_shares(slice(0, size), size, bins, one)
            for size, bins in zip((rows, columns), summary.grid, strict=True)
        )
        grid = of_rows.T @ (of_columns[index] * one[..., None])
    if summary.weights:
        weights = one.new_zeros(batch, heads, rows, columns).scatter_(-1, index[..., None], one[..., None])
    return SummaryResult(
        expected_key=position.to(dtype) if summary.expected_key else None,
        key_variance=torch.zeros_like(one) if summary.expected_key else None,
        key_mass=one.new_zeros(batch, heads, columns).scatter_add_(-1, index, one) if summary.key_mass else None,
        top_keys=functional.pad(top_keys, (0, rest), value=-1) if summary.top_k else None,
        top_weights=functional.pad(one[..., None], (0, rest)) if summary.top_k else None,
        grid=grid,
        weights=weights,
    )
