"""Linear maps in int8 are bitwise the same in every instruction set, for any number of rows, and in PyTorch."""

from collections.abc import Iterator

import pytest
import torch
from torch import Tensor, nn

from regard import kernels
from regard.layers import quantized_linear
from regard.layers.quantized_linear import QuantizedLinear, QuantizedWeight, block_codes, linear_maps, quantize_rows

ISAS = kernels.module().int8_isas() if kernels.missing() is None else []
# Rows below and above the least of AMX tiles; sizes that fill blocks, tiles and parts of the depth, or do not.
SHAPES = [(1, 64, 64), (3, 67, 35), (4, 100, 16), (5, 63, 33), (37, 130, 49), (70, 1091, 50), (301, 2050, 17)]


@pytest.fixture(params=ISAS)
def isa(request: pytest.FixtureRequest) -> Iterator[str]:
    best = kernels.module().int8_isa()
    assert kernels.module().choose_int8(request.param)
    yield request.param
    kernels.module().choose_int8(best)


def layer(depth: int, outputs: int) -> QuantizedLinear:
    torch.manual_seed(depth)
    return QuantizedLinear.of(nn.Linear(depth, outputs))


def by_pytorch(weight: QuantizedWeight, bias: Tensor | None, x: Tensor, monkeypatch: pytest.MonkeyPatch) -> Tensor:
    with monkeypatch.context() as patch:
        patch.setattr(quantized_linear.kernels, "missing", lambda: "no kernels")
        return linear_maps([(weight, bias)], x)[0]


@pytest.mark.parametrize("shape", SHAPES)
def test_bitwise_as_pytorch(isa: str, shape: tuple[int, int, int], monkeypatch: pytest.MonkeyPatch) -> None:
    rows, depth, outputs = shape
    quantized, x = layer(depth, outputs), torch.randn(rows, depth) * torch.rand(rows, 1)
    expected = by_pytorch(quantized.quantized, quantized.bias, x, monkeypatch)
    assert torch.equal(quantized(x), expected)


@pytest.mark.parametrize("rows", [1, 6, 40])
def test_the_largest_sums_neither_saturate_nor_overflow(isa: str, rows: int) -> None:
    depth = 1024  # 1024 * 127 * 127 < 2^24: float32 holds the sums
    codes = torch.full((32, depth), 127, dtype=torch.int8)
    codes[1], codes[2, ::2] = -127, -127
    weight = QuantizedWeight(block_codes(codes), torch.ones(32), codes.sum(1, dtype=torch.int32), depth)
    x = torch.full((rows, depth), -127.0)
    x[0] = 127
    x[-1, 1::2] = 127
    exact = x.double() @ codes.double().t()
    assert torch.equal(linear_maps([(weight, None)], x)[0].double(), exact)


def test_a_row_does_not_depend_on_others(isa: str) -> None:
    quantized, x = layer(200, 90), torch.randn(70, 200)
    together = quantized(x)
    for rows in (1, 2, 5, 33):
        assert torch.equal(torch.cat([quantized(part) for part in x.split(rows)]), together)


def test_the_same_on_two_threads(isa: str) -> None:
    quantized, x, threads = layer(512, 512), torch.randn(90, 512), torch.get_num_threads()
    one = quantized(x)
    torch.set_num_threads(2)
    try:
        assert torch.equal(quantized(x), one)
    finally:
        torch.set_num_threads(threads)


def test_rows_that_are_not_finite_tiny_or_zero(isa: str) -> None:
    quantized, x = layer(70, 64), torch.randn(9, 70)
    expected = quantized(x)
    x[1, 3], x[2, 69], x[3], x[4] = torch.nan, torch.inf, 0, 1e-38
    y = quantized(x)
    assert y[1:3].isnan().all()
    assert torch.equal(y[3], quantized.bias)
    assert torch.equal(y[4], quantized.bias)
    assert torch.equal(y[[0, 5, 6, 7, 8]], expected[[0, 5, 6, 7, 8]])


def test_maps_of_one_input_are_those_of_each(isa: str) -> None:
    maps, x = [layer(96, outputs) for outputs in (64, 96, 48)], torch.randn(2, 7, 96)
    together = linear_maps([(one.quantized, one.bias) for one in maps], x)
    assert all(torch.equal(y, one(x)) for y, one in zip(together, maps, strict=True))


def test_codes_are_the_nearest_and_ties_go_to_even() -> None:
    codes, scales = quantize_rows(torch.tensor([[127.0, 0.5, 1.5, -2.5, -126.6], [0, 0, 0, 0, 0]]))
    assert codes.tolist() == [[127, 0, 2, -2, -127], [0, 0, 0, 0, 0]]
    assert scales.tolist() == [1, 0]
