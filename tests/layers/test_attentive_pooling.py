"""Attentive pooling against its equations, written out."""

import pytest
import torch

from regard.attention.summary import Summary
from regard.errors import ConfigError
from regard.layers.attentive_pooling import AttentivePooling


def made() -> AttentivePooling:
    torch.manual_seed(0)
    pooling = AttentivePooling(5, hops=3, align_dim=7).double()
    torch.nn.init.normal_(pooling.vector)
    return pooling


def test_the_equations() -> None:
    pooling, hidden, lengths = made(), torch.randn(2, 11, 5, dtype=torch.float64), torch.tensor([11, 4])
    means, result = pooling(hidden, lengths, summary=Summary(weights=True))
    for row, length in enumerate(lengths.tolist()):
        states = hidden[row, :length]
        weights = torch.softmax(pooling.vector @ torch.tanh(states @ pooling.key_proj.weight.T).T, -1)
        torch.testing.assert_close(means[row], weights @ states)
        torch.testing.assert_close(result.weights[row, :, 0, :length], weights)
        assert not result.weights[row, :, 0, length:].any()


def test_it_starts_as_the_mean() -> None:
    pooling, hidden = AttentivePooling(5, hops=2, align_dim=3), torch.randn(1, 6, 5)
    torch.testing.assert_close(pooling(hidden), hidden.mean(1, keepdim=True).expand(-1, 2, -1))


def test_padding_may_hold_anything() -> None:
    pooling, hidden, lengths = made(), torch.randn(2, 11, 5, dtype=torch.float64), torch.tensor([11, 4])
    expected = pooling(hidden, lengths)
    hidden[1, 4:] = float("nan")
    torch.testing.assert_close(pooling(hidden, lengths), expected)


def test_gradients() -> None:
    pooling, hidden = made(), torch.randn(2, 5, 5, dtype=torch.float64, requires_grad=True)
    lengths = torch.tensor([5, 2])

    def run(hidden: torch.Tensor, vector: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
        return torch.func.functional_call(pooling, {"vector": vector, "key_proj.weight": weight}, (hidden, lengths))

    assert torch.autograd.gradcheck(run, (hidden, pooling.vector, pooling.key_proj.weight))


def test_a_size_below_one() -> None:
    with pytest.raises(ConfigError, match="hops=0"):
        AttentivePooling(5, hops=0, align_dim=3)
