"""The LSTM layer by PyTorch's kernel is the one written out."""

import pytest
import torch
from torch import nn

from regard.errors import ShapeError
from regard.layers.recurrent import BidirectionalLSTM, SequenceLSTM


def test_it_is_the_layer_written_out() -> None:
    torch.manual_seed(0)
    fused = SequenceLSTM(5, 3).double()
    plain = BidirectionalLSTM(5, 3, 1, dropout=nn.Identity()).double()
    order = torch.arange(12).view(4, 3)[[0, 1, 3, 2]].flatten()  # i, f, o, new from i, f, new, o
    with torch.no_grad():
        for direction, layers in enumerate((plain.forwards, plain.backwards)):
            layer = layers[0]
            fused.biases[direction].copy_(torch.randn(12))
            layer.input_projs[0].weight.copy_(fused.input_weights[direction][order])
            layer.input_projs[0].bias.copy_(fused.biases[direction][order])
            layer.state_projs[0].weight.copy_(fused.state_weights[direction][order])
    x, lengths = torch.randn(2, 7, 5, dtype=torch.float64), torch.tensor([7, 4])
    ours, (expected, _) = fused(x, lengths), plain(x, lengths)
    torch.testing.assert_close(ours[0], expected[0], rtol=0, atol=1e-12)
    torch.testing.assert_close(ours[1, :4], expected[1, :4], rtol=0, atol=1e-12)
    with pytest.raises(ShapeError, match="expected at least one position"):
        fused(x[:, :0], lengths)


def test_one_direction_does_not_look_ahead() -> None:
    torch.manual_seed(0)
    layer = SequenceLSTM(5, 3, directions=1)
    x, lengths = torch.randn(1, 6, 5), torch.tensor([6])
    changed = x.clone()
    changed[:, 4:] = 0
    assert layer(x, lengths).shape == (1, 6, 3)
    assert torch.equal(layer(x, lengths)[:, :4], layer(changed, lengths)[:, :4])


def test_the_forget_gate_starts_open() -> None:
    layer = SequenceLSTM(5, 3)
    assert [bias.tolist() for bias in layer.biases] == [[0, 0, 0, 1, 1, 1, *[0] * 6]] * 2
    for matrix in layer.state_weights[0].split(3):
        torch.testing.assert_close(matrix @ matrix.T, torch.eye(3))
