"""The bidirectional LSTM against PyTorch's on packed sentences."""

import pytest
import torch
from torch import Tensor, nn

from regard.layers.recurrent import BidirectionalLSTM

LENGTHS = torch.tensor([7, 3, 1])
N = 4


def as_ours(theirs: nn.LSTM) -> BidirectionalLSTM:
    """The same weights: PyTorch's gates are in the order i, f, new, o; ours i, f, o, new."""
    ours = BidirectionalLSTM(theirs.input_size, N, theirs.num_layers, dropout=nn.Identity()).double()

    def gates(x: Tensor) -> Tensor:
        i, f, new, o = x.split(N)
        return torch.cat([i, f, o, new])

    with torch.no_grad():
        for layer in range(theirs.num_layers):
            for name, modules in (("", ours.forwards), ("_reverse", ours.backwards)):
                weights = {part: getattr(theirs, f"{part}_l{layer}{name}") for part in ("weight_ih", "weight_hh")}
                biases = [getattr(theirs, f"{part}_l{layer}{name}") for part in ("bias_ih", "bias_hh")]
                modules[layer].input_projs[0].weight.copy_(gates(weights["weight_ih"]))
                modules[layer].state_projs[0].weight.copy_(gates(weights["weight_hh"]))
                modules[layer].input_projs[0].bias.copy_(gates(biases[0] + biases[1]))
    return ours


@pytest.mark.parametrize("layers", [1, 2])
def test_it_is_that_of_packed_sentences(layers: int) -> None:
    torch.manual_seed(0)
    theirs = nn.LSTM(5, N, layers, batch_first=True, bidirectional=True).double()
    x = torch.randn(3, 7, 5, dtype=torch.float64)
    packed = nn.utils.rnn.pack_padded_sequence(x, LENGTHS, batch_first=True, enforce_sorted=False)
    output, (hidden, cell) = theirs(packed)
    expected, _ = nn.utils.rnn.pad_packed_sequence(output, batch_first=True)
    outputs, states = as_ours(theirs)(x, LENGTHS)
    seen = torch.arange(7) < LENGTHS[:, None]
    torch.testing.assert_close(outputs[seen], expected[seen])
    assert len(states) == layers
    for layer, (last_outputs, last_cells) in enumerate(states):
        both = slice(2 * layer, 2 * layer + 2)
        torch.testing.assert_close(last_outputs, hidden[both].transpose(0, 1).flatten(1))
        torch.testing.assert_close(last_cells, cell[both].transpose(0, 1).flatten(1))
