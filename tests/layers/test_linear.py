"""A few rows, computed the other way round, are the same map."""

import pytest
import torch
from torch import nn

from regard.layers.linear import FEWEST, MOST, Linear, linear

INPUTS, OUTPUTS = 37, 53


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("shape", [(1,), (FEWEST - 1,), (FEWEST,), (3, 1, 7), (MOST,), (MOST + 1,), ()], ids=str)
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


@pytest.mark.skipif(not torch.backends.mkl.is_available(), reason="the other way round is taken with MKL only")
def test_which_way_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[str] = []
    plain = nn.functional.linear
    monkeypatch.setattr("regard.layers.linear.functional.linear", lambda *x: calls.append("plain") or plain(*x))
    layer = Linear(INPUTS, OUTPUTS)
    for rows, expected in ((FEWEST - 1, 1), (FEWEST, 0), (MOST, 0), (MOST + 1, 1)):
        calls.clear()
        with torch.no_grad():
            layer(torch.randn(rows, INPUTS))
        assert len(calls) == expected
    x = torch.randn(FEWEST, INPUTS)
    calls.clear()
    layer(x).sum().backward()  # gradients: PyTorch's own way
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        assert layer(x).dtype == torch.bfloat16
    with torch.no_grad():
        layer.double()(x.double())
        torch.func.vmap(lambda row: layer(row))(x.double())
    assert len(calls) == 4


def test_wrong_sizes_are_told_by_pytorch() -> None:
    with torch.no_grad(), pytest.raises(RuntimeError, match="mat1 and mat2 shapes cannot be multiplied"):
        linear(torch.randn(FEWEST, INPUTS + 1), torch.randn(OUTPUTS, INPUTS))
