"""A call as arguments of the native kernels: addresses, sizes, strides and numbers."""

from typing import Any, NamedTuple, cast

import torch
from torch import Tensor

from regard import kernels
from regard.attention.backends.native.huge_pages import empty
from regard.attention.backends.native.mask import NativeMask
from regard.attention.bias import Bias, TensorBias
from regard.attention.engine.call import Call
from regard.attention.hard import Hard
from regard.attention.normalizer import Entmax, Normalizer, Sigmoid, Softmax, Sparsemax
from regard.attention.prior import Gaussian
from regard.attention.score import Additive, Dot

CPU = torch.device("cpu")  # whatever the default device is
CODES = {torch.float32: 0, torch.float64: 1, torch.float16: 2, torch.bfloat16: 3}
ACTIVATIONS = ("tanh", "relu", "sigmoid")
NORMALIZERS = {Softmax: 0, Sigmoid: 1, Entmax: 2, Sparsemax: 2, Hard: 3}
SAMPLE = 4  # of `Hard` that samples
View = tuple[int, int, int, int, int]  # address and strides
NOTHING: View = (0, 0, 0, 0, 0)


def arguments(call: Call, mask: NativeMask, output: Tensor | None, row_max_log_sum: Tensor | None) -> tuple[Any, ...]:
    """Arguments of the kernels' full entries; the last holds references to the tensors behind the addresses."""
    spec, dtype = call.spec, call.dtype
    (batch, heads, rows, dim), columns = call.query.shape, call.key.shape[2]
    score, normalizer, bias = spec.score, spec.normalizer, spec.bias
    scale, softcap = (score.scale, score.softcap) if isinstance(score, Dot) else (1.0, None)
    vector = center = sigma = None
    activation = 0
    if isinstance(score, Additive):
        vector, activation = score.vector.to(dtype).expand(heads, dim).contiguous(), ACTIVATIONS.index(score.activation)
    dense: View = NOTHING
    by_distance: View = NOTHING
    references: list[Tensor | None] = []
    parameter = _parameter(normalizer)
    if parameter is not None:
        parameter = torch.as_tensor(parameter, dtype=dtype, device=CPU).expand(heads).contiguous()
    if isinstance(normalizer, Softmax) and isinstance(normalizer.prior, Gaussian):
        center = normalizer.prior.center.to(dtype).expand(batch, heads, rows)
        sigma = torch.as_tensor(normalizer.prior.sigma, dtype=dtype, device=CPU).expand(heads).contiguous()
    if isinstance(bias, TensorBias):
        tensor = bias.tensor.to(dtype)
        dense = spread_view(tensor, rows, columns)
        references.append(tensor)
    elif bias is not None:
        table = by_distance_table(call, bias).expand(batch, heads, -1).contiguous()
        by_distance = (table.data_ptr(), table.stride(0), table.stride(1), 0, 1)
        references.append(table)
    references += [row_max_log_sum, vector, parameter, center, sigma, *mask[3:]]
    min_offset, max_offset, start, starts, lengths, query_ids, key_ids, tiles, bits = mask
    return (
        *_tensors(call, output), view_of(row_max_log_sum),
        dim**-0.5 if scale is None else float(scale), softcap or 0.0, address(vector), activation,
        SAMPLE if normalizer.draws else NORMALIZERS[type(normalizer)], address(parameter),
        (min_offset, max_offset, start, address(starts), address(lengths),
         address(query_ids), _batch_stride(query_ids), address(key_ids), _batch_stride(key_ids),
         address(tiles), _batch_stride(tiles),
         0 if tiles is None or tiles.shape[1] == 1 else tiles.stride(1), address(bits)),
        dense, by_distance,
        NOTHING if center is None else (center.data_ptr(), *center.stride(), 0), address(sigma), call.key_start,
        spec.dropout, 0 if call.seed is None else int(call.seed), torch.get_num_threads(), relaxed(), references,
    )  # fmt: skip


def relaxed() -> bool:
    """Whether `torch.set_float32_matmul_precision` allows float32 products below float32 precision."""
    try:
        return torch.get_float32_matmul_precision() != "highest"
    except RuntimeError:  # set per backend through `fp32_precision`, which does not cover attention
        return False


def _parameter(normalizer: Normalizer) -> float | Tensor | None:
    """A normalizer's per-head parameter: alpha, bias or temperature; None if it has none."""
    if isinstance(normalizer, Entmax):
        return normalizer.alpha
    if isinstance(normalizer, Sigmoid):
        return normalizer.bias
    if isinstance(normalizer, Hard):
        return normalizer.temperature if normalizer.draws else None
    return 2.0 if isinstance(normalizer, Sparsemax) else None


def by_distance_table(call: Call, bias: Bias) -> Tensor:
    """Table of a distance bias, indexed by query row - key column + S - 1: (B or 1, H or 1, L + S - 1)."""
    rows, columns, start = call.query.shape[2], call.key.shape[2], call.query_start
    first = start[:, None] if isinstance(start, Tensor) else torch.tensor([[start]], device=CPU)
    # row - column + S - 1 = i, so the key stands i - (S - 1) + query_start - key_start before the query
    offset = (columns - 1 + call.key_start) - first - torch.arange(rows + columns - 1, device=CPU)
    return cast(Tensor, bias.by_offset(offset, call.dtype))  # a bias that has none is refused


def _tensors(call: Call, output: Tensor | None) -> tuple[int, tuple[int, ...], View, View, View, View]:
    """Dtype code, sizes, and the views of query, key, value and output."""
    return *_kind(call), view_of(call.query), view_of(call.key), view_of(call.value), view_of(output)


def _kind(call: Call) -> tuple[int, tuple[int, ...]]:
    """Dtype code and sizes (B, H, G, L, S, E, V)."""
    (batch, heads, rows, dim), (_, groups, columns, value_dim) = call.query.shape, call.value.shape
    return CODES[call.query.dtype], (batch, heads, groups, rows, columns, dim, value_dim)


def view_of(x: Tensor | None) -> View:
    if x is None:
        return NOTHING
    b, h, r, c = x.stride()
    return x.data_ptr(), b, h, r, c


def spread_view(x: Tensor, rows: int, columns: int) -> View:
    """View of a tensor that broadcasts to (B, H, L, S), with stride 0 along broadcast dimensions."""
    shape, strides = (1,) * (4 - x.dim()) + tuple(x.shape), (0,) * (4 - x.dim()) + x.stride()
    b, h, r, c = (0 if n == 1 else step for n, step in zip(shape, strides, strict=True))
    return x.data_ptr(), b, h, r, c


def address(x: Tensor | None) -> int:
    return 0 if x is None else x.data_ptr()


def _batch_stride(x: Tensor | None) -> int:
    """Batch stride; 0 if broadcast."""
    return 0 if x is None or x.shape[0] == 1 else x.stride(0)


class CompactCall(NamedTuple):
    """Compact arguments of a call with softmax, dot scores and a banded mask.

    Converting all arguments takes longer than a small call itself.
    """

    code: int  # of the dtype
    sizes: tuple[int, ...]
    output: tuple[int, ...]  # its sizes
    score: tuple[float, float]  # scale and softcap
    band: tuple[int, int, int]  # smallest and largest column - row - start, and start

    @staticmethod
    def of(call: Call, mask: NativeMask) -> "CompactCall":
        """Arguments of a call with softmax, dot scores and a banded mask."""
        score, (batch, heads, rows, dim) = cast(Dot, call.spec.score), call.query.shape
        scale = dim**-0.5 if score.scale is None else float(score.scale)
        output = (batch, heads, rows, call.value.shape[3])
        return CompactCall(*_kind(call), output, (scale, score.softcap or 0.0), mask[:3])

    def run(self, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        output = empty(query, self.output)
        views = (view_of(query), view_of(key), view_of(value), view_of(output))
        threads = torch.get_num_threads()
        kernels.module().compact_call(self.code, self.sizes, *views, *self.score, *self.band, threads, relaxed())
        return output
