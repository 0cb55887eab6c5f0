"""Arguments of the native kernels: addresses, sizes, strides and numbers."""

from typing import Any, NamedTuple, cast

import torch
from torch import Tensor

from regard import kernels
from regard.attention.backends.native.huge_pages import empty
from regard.attention.backends.native.mask import NativeMask
from regard.attention.bias import Bias, TensorBias
from regard.attention.engine.call import Call
from regard.attention.normalizer import Entmax, Normalizer, Sigmoid, Softmax, Sparsemax
from regard.attention.prior import Gaussian
from regard.attention.score import Additive, Dot

CPU = torch.device("cpu")  # whatever the default device is
CODES = {torch.float32: 0, torch.float64: 1, torch.float16: 2, torch.bfloat16: 3}
ACTIVATIONS = ("tanh", "relu", "sigmoid")
NORMALIZERS = {Softmax: 0, Sigmoid: 1, Entmax: 2, Sparsemax: 2}
View = tuple[int, int, int, int, int]  # address and strides
NOTHING: View = (0, 0, 0, 0, 0)


def arguments(call: Call, mask: NativeMask, output: Tensor | None, statistic: Tensor | None) -> tuple[Any, ...]:
    """Kernel arguments of a call. The last one holds the tensors they point to, which must outlive the kernel call."""
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
    kept: list[Tensor | None] = []
    parameter = _parameter(normalizer)
    if parameter is not None:
        parameter = torch.as_tensor(parameter, dtype=dtype, device=CPU).expand(heads).contiguous()
    if isinstance(normalizer, Softmax) and isinstance(normalizer.prior, Gaussian):
        center = normalizer.prior.center.to(dtype).expand(batch, heads, rows)
        sigma = torch.as_tensor(normalizer.prior.sigma, dtype=dtype, device=CPU).expand(heads).contiguous()
    if isinstance(bias, TensorBias):
        tensor = bias.tensor.to(dtype)
        dense = spread_view(tensor, rows, columns)
        kept.append(tensor)
    elif bias is not None:
        table = by_distance_table(call, bias).expand(batch, heads, -1).contiguous()
        by_distance = (table.data_ptr(), table.stride(0), table.stride(1), 0, 1)
        kept.append(table)
    kept += [statistic, vector, parameter, center, sigma, *mask[3:]]
    least, most, start, starts, lengths, query_ids, key_ids, tiles, bits = mask
    return (
        *_tensors(call, output), view_of(statistic),
        dim**-0.5 if scale is None else float(scale), softcap or 0.0, address(vector), activation,
        NORMALIZERS[type(normalizer)], address(parameter),
        (least, most, start, address(starts), address(lengths),
         address(query_ids), _step(query_ids), address(key_ids), _step(key_ids),
         address(tiles), _step(tiles), 0 if tiles is None or tiles.shape[1] == 1 else tiles.stride(1), address(bits)),
        dense, by_distance,
        NOTHING if center is None else (center.data_ptr(), *center.stride(), 0), address(sigma), call.key_start,
        spec.dropout, 0 if call.seed is None else int(call.seed), torch.get_num_threads(), relaxed(), kept,
    )  # fmt: skip


def relaxed() -> bool:
    """Whether `torch.set_float32_matmul_precision` allows reduced precision in float32 products."""
    try:
        return torch.get_float32_matmul_precision() != "highest"
    except RuntimeError:  # set per backend, through `fp32_precision`, which does not apply to attention
        return False


def _parameter(normalizer: Normalizer) -> float | Tensor | None:
    """Parameter of a normalizer, a number or one per head: alpha of Entmax, bias of Sigmoid."""
    if isinstance(normalizer, Entmax):
        return normalizer.alpha
    if isinstance(normalizer, Sigmoid):
        return normalizer.bias
    return 2.0 if isinstance(normalizer, Sparsemax) else None


def by_distance_table(call: Call, bias: Bias) -> Tensor:
    """Bias table indexed by query row - key column + S - 1, (B or 1, H or 1, L + S - 1)."""
    rows, columns, start = call.query.shape[2], call.key.shape[2], call.query_start
    first = start[:, None] if isinstance(start, Tensor) else torch.tensor([[start]], device=CPU)
    # with i = row - column + S - 1, the key is i - (S - 1) + query_start - key_start positions before the query
    offset = (columns - 1 + call.key_start) - first - torch.arange(rows + columns - 1, device=CPU)
    return cast(Tensor, bias.by_offset(offset, call.dtype))  # a bias without one is refused before


def _tensors(call: Call, output: Tensor | None) -> tuple[int, tuple[int, ...], View, View, View, View]:
    """Dtype code, sizes, and views of query, key, value and output."""
    return *_kind(call), view_of(call.query), view_of(call.key), view_of(call.value), view_of(output)


def _kind(call: Call) -> tuple[int, tuple[int, ...]]:
    """Dtype code and sizes."""
    (batch, heads, rows, dim), (_, groups, columns, value_dim) = call.query.shape, call.value.shape
    return CODES[call.query.dtype], (batch, heads, groups, rows, columns, dim, value_dim)


def view_of(x: Tensor | None) -> View:
    """Address and strides of a tensor (B, H, L, E)."""
    if x is None:
        return NOTHING
    b, h, r, c = x.stride()
    return x.data_ptr(), b, h, r, c


def spread_view(x: Tensor, rows: int, columns: int) -> View:
    """Address and strides of a tensor that broadcasts to (B, H, L, S), with stride 0 in broadcast dimensions."""
    shape, strides = (1,) * (4 - x.dim()) + tuple(x.shape), (0,) * (4 - x.dim()) + x.stride()
    b, h, r, c = (0 if n == 1 else step for n, step in zip(shape, strides, strict=True))
    return x.data_ptr(), b, h, r, c


def address(x: Tensor | None) -> int:
    """Address of the data of a tensor; 0 for None."""
    return 0 if x is None else x.data_ptr()


def _step(x: Tensor | None) -> int:
    """Stride of the batch dimension; 0 if it is broadcast."""
    return 0 if x is None or x.shape[0] == 1 else x.stride(0)


class CompactCall(NamedTuple):
    """Compact arguments of a call with softmax, dot scores and a banded mask.

    For a small call, converting all arguments would take longer than the attention itself.
    """

    code: int  # dtype code
    sizes: tuple[int, ...]
    output: tuple[int, ...]  # output sizes
    score: tuple[float, float]  # scale and softcap
    band: tuple[int, int, int]  # min and max of column - row - start, and start

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
        kernels.module().brief(self.code, self.sizes, *views, *self.score, *self.band, threads, relaxed())
        return output
