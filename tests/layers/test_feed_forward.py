"""Feed-forward networks, against their formulas and PyTorch's functions."""

import pytest
import torch
from torch.nn import functional

from regard.layers.transformer_layer import ACTIVATIONS, FeedForward, GatedFeedForward

X = torch.linspace(-3, 3, 5 * 7, dtype=torch.float64).view(1, 5, 7)


def test_the_gate_multiplies() -> None:
    layer = GatedFeedForward(7, 11).double()
    gate, expand, contract = (linear.weight for linear in (layer.gate, layer.expand, layer.contract))
    expected = (functional.silu(X @ gate.T) * (X @ expand.T)) @ contract.T
    torch.testing.assert_close(layer(X), expected)


@pytest.mark.parametrize("kind", [FeedForward, GatedFeedForward])
def test_biases_are_there_or_not(kind: type[FeedForward | GatedFeedForward]) -> None:
    names = {name for name, _ in kind(7, 11, bias=True).named_parameters()}
    without = {name for name, _ in kind(7, 11, bias=False).named_parameters()}
    assert without == {name for name in names if name.endswith("weight")} != names


def test_gelu_by_tanh() -> None:
    by_hand = 0.5 * X * (1 + torch.tanh((2 / torch.pi) ** 0.5 * (X + 0.044715 * X**3)))
    torch.testing.assert_close(ACTIVATIONS["gelu-tanh"](X), by_hand)
    assert (ACTIVATIONS["gelu-tanh"](X) - ACTIVATIONS["gelu"](X)).abs().max() > 1e-5
