"""A few rows by the kernel are the same map."""

import pytest
import torch
from torch import nn
from torch.fx.experimental.proxy_tensor import make_fx

from regard import kernels
from regard.layers.linear import MAX_DOT_ROWS, Linear, linear

INPUTS, OUTPUTS = 37, 53
needs_kernel = pytest.mark.skipif(
    kernels.missing() is not None or kernels.isa() == "baseline", reason="there is no kernel that is raced here"
)


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("shape", [(1,), (2,), (5,), (3, 1, 7), (MAX_DOT_ROWS,), (MAX_DOT_ROWS + 1,), ()], ids=str)
def test_it_is_the_same_map(shape: tuple[int, ...], bias: bool) -> None:
    torch.manual_seed(0)
    layer = Linear(INPUTS, OUTPUTS, bias)
    x = torch.randn(*shape, INPUTS)
    exact = nn.functional.linear(x.double(), layer.weight.double(), layer.bias.double() if bias else None)
    with torch.inference_mode():
        found = layer(x)
        turned = layer(x.mT.contiguous().mT if x.dim() > 1 else x)
    assert found.is_contiguous()
    torch.testing.assert_close(found.double(), exact.detach(), rtol=0, atol=1e-5)
    torch.testing.assert_close(turned, found, rtol=0, atol=1e-5)


@needs_kernel
@pytest.mark.parametrize("isa", kernels.module().isas() if kernels.missing() is None else [])
@pytest.mark.parametrize(
    ("inputs", "outputs"), [(1, 1), (15, 3), (16, 4), (17, 5), (64, 33), (1024, 70), (1031, 67), (2050, 129)]
)
def test_all_sizes_on_every_instruction_set(isa: str, inputs: int, outputs: int) -> None:
    """Against float64, at no more than twice PyTorch's error and a rounding; and each row as if alone."""
    torch.manual_seed(inputs)
    native, best = kernels.module(), kernels.isa()
    weights = torch.randn(outputs, inputs + 3)[:, 1:-2]  # rows with something between them
    bias = torch.randn(outputs)
    rows = torch.randn(13, inputs + 2)[:, 2:]
    plain = nn.functional.linear(rows, weights, bias)
    exact = nn.functional.linear(rows.double(), weights.double(), bias.double())
    allowed = 2 * (plain - exact).abs().max() + torch.finfo(torch.float32).eps * exact.abs().max()
    native.choose(isa)
    try:
        with torch.no_grad():
            found = torch.full((14, outputs), torch.nan)
            for count in range(1, 14):
                place = (weights.data_ptr(), weights.stride(0), bias.data_ptr(), found.data_ptr(), 1 + count % 2)
                native.linear(count, outputs, inputs, rows.data_ptr(), rows.stride(0), *place)
                assert (found[:count] - exact[:count]).abs().max() <= allowed
                assert found[count].isnan().all()  # nothing beyond
                alone = torch.empty(outputs)
                place = (weights.data_ptr(), weights.stride(0), bias.data_ptr(), alone.data_ptr(), 1)
                native.linear(1, outputs, inputs, rows[count - 1].data_ptr(), rows.stride(0), *place)
                assert torch.equal(alone, found[count - 1])
    finally:
        native.choose(best)


@needs_kernel
def test_which_way_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[str] = []
    plain = nn.functional.linear
    monkeypatch.setattr("regard.layers.linear.functional.linear", lambda *x: calls.append("plain") or plain(*x))
    layer = Linear(INPUTS, OUTPUTS)
    for rows, expected in ((1, 0), (MAX_DOT_ROWS, 0), (MAX_DOT_ROWS + 1, 1)):
        calls.clear()
        with torch.no_grad():
            layer(torch.randn(rows, INPUTS))
        assert len(calls) == expected
    x = torch.randn(5, INPUTS)
    calls.clear()
    layer(x).sum().backward()  # gradients: PyTorch's own way
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        assert layer(x).dtype == torch.bfloat16
    with torch.no_grad():
        torch.func.vmap(lambda row: layer(row))(x)
        torch.func.vmap(lambda weight: linear(x, weight))(torch.randn(3, OUTPUTS, INPUTS))
        graph = make_fx(lambda x: layer(x))(x)
        torch.testing.assert_close(graph(x + 1), layer(x + 1))
        assert linear(x, layer.weight, torch.ones(1)).shape == (5, OUTPUTS)  # a bias that broadcasts
        with pytest.raises(RuntimeError, match="device"):
            Linear(INPUTS, OUTPUTS, device="meta")(x)
        layer.double()(x.double())
    assert len(calls) == 8


def test_without_kernels(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("regard.layers.linear.fast", lambda: None)
    x, layer = torch.randn(5, INPUTS), Linear(INPUTS, OUTPUTS)
    with torch.no_grad():
        assert torch.equal(layer(x), nn.functional.linear(x, layer.weight, layer.bias))


def test_wrong_sizes_raise_pytorchs_error() -> None:
    with torch.no_grad(), pytest.raises(RuntimeError, match="mat1 and mat2 shapes cannot be multiplied"):
        linear(torch.randn(5, INPUTS + 1), torch.randn(OUTPUTS, INPUTS))
