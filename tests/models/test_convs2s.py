"""Gehring's model against its paper's equations, with PyTorch's convolutions, and its start of training."""

import math

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from regard.errors import ShapeError
from regard.layers.convolution import GatedConvolution, WeightNormLinear
from regard.models.convs2s import ConvS2S, ConvS2SConfig
from regard.models.seq2seq import Vocabulary

N = 11
SOURCE, TARGET = [5, 9, 3, 7, 8, 2], [1, 4, 8, 8, 6]
HALF = math.sqrt(0.5)


def weight(held: dict[str, Tensor], name: str) -> Tensor:
    direction = held[f"{name}.direction"]
    return held[f"{name}.gain"] * direction / direction.square().sum(1, keepdim=True).sqrt()


def linear(held: dict[str, Tensor], name: str, x: Tensor) -> Tensor:
    return x @ weight(held, name).T + held[f"{name}.bias"]


def convolved(held: dict[str, Tensor], name: str, x: Tensor, left: int, right: int) -> Tensor:
    """A padded convolution and its gate, section 3.2: (L, D) to (L, D)."""
    both = weight(held, f"{name}.both")
    kernel = both.unflatten(1, (-1, x.shape[1])).transpose(1, 2)  # (2 D, D, k)
    padded = functional.pad(x.T[None], (left, right))
    a, b = functional.conv1d(padded, kernel, held[f"{name}.both.bias"])[0].T.chunk(2, 1)
    return a * torch.sigmoid(b)


@pytest.mark.parametrize("kernel", [3, 5])
def test_the_equations(kernel: int) -> None:
    torch.manual_seed(0)
    config = ConvS2SConfig(
        vocabulary=Vocabulary(size=N), embed_dim=4, hidden_dim=5, encoder_layers=3, decoder_layers=2, kernel=kernel
    )
    model = ConvS2S(config).double().eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(std=0.7)
    held = model.state_dict()

    e = held["embeddings.weight"][SOURCE] + held["source_positions.weight"][: len(SOURCE)]
    h = linear(held, "encoder_in", e)
    for i in range(3):
        h = (convolved(held, f"encoder.{i}", h, kernel // 2, kernel // 2) + h) * HALF
    z = linear(held, "encoder_out", h)
    values = (z + e) * HALF

    g = held["embeddings.weight"][TARGET] + held["target_positions.weight"][: len(TARGET)]
    h = linear(held, "decoder_in", g)
    for i in range(2):
        x, h = h, convolved(held, f"decoder.{i}.convolution", h, kernel - 1, 0)
        d = (linear(held, f"decoder.{i}.query_proj", h) + g) * HALF
        context = torch.softmax(d @ z.T, 1) @ values * len(SOURCE) * math.sqrt(1 / len(SOURCE))
        h = ((h + linear(held, f"decoder.{i}.context_proj", context)) * HALF + x) * HALF
    expected = linear(held, "decoder_out", h) @ held["embeddings.weight"].T + held["embeddings.output_bias"]
    found = model(torch.tensor([SOURCE]), None, torch.tensor([TARGET])).logits[0]
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-11)


def test_weights_have_their_gain_as_length() -> None:
    torch.manual_seed(0)
    layer = WeightNormLinear(7, 5)
    plain = layer.direction.detach().clone()
    x = torch.randn(3, 7)
    torch.testing.assert_close(layer(x), functional.linear(x, plain, layer.bias))  # at the start it is the direction
    with torch.no_grad():
        layer.direction *= 3
    torch.testing.assert_close(layer(x), functional.linear(x, plain, layer.bias))


@torch.no_grad()
def test_layers_keep_the_variance_they_start_with() -> None:
    """Section 3.5: outputs vary about as much as inputs, layer after layer, where a gate's inputs are small."""
    torch.manual_seed(0)
    x = before = 0.1 * torch.randn(8, 100, 64)
    for _ in range(10):
        seen = functional.dropout(functional.pad(x, (0, 0, 2, 0)), 0.3)
        x = (GatedConvolution(64, 3, keep=0.7)(seen) + x) * HALF
    assert 0.7 < float(x.var() / before.var()) < 1.4


def test_a_text_longer_than_the_positions_is_refused() -> None:
    model = ConvS2S(ConvS2SConfig(vocabulary=Vocabulary(size=N), embed_dim=4, hidden_dim=5, max_length=6)).eval()
    with pytest.raises(ShapeError, match="have positions 0 to 6, but the layer has vectors for 0 to 5"):
        model(torch.tensor([[*SOURCE, 2]]), None, torch.tensor([TARGET]))
    state = model.start(model.encode(torch.tensor([SOURCE])))
    for _ in range(6):
        model.advance(torch.tensor([[4]]), state)
    with pytest.raises(ShapeError, match="have positions 6 to 6"):
        model.advance(torch.tensor([[4]]), state)
