"""Learned settings: their tensors are the layer's, and train."""

import copy
import math

import pytest
import torch

import regard as rg
from regard.layers.learned import Learned

LENGTH, EMBED_DIM, HEADS, HEAD_DIM = 5, 12, 3, 4
# setting, the layer's argument, names in its state_dict with shapes
SETTINGS: dict[str, tuple[Learned, str, dict[str, tuple[int, ...]]]] = {
    "cosine": (rg.LearnedCosine(), "score", {"score.scale": (3,)}),
    "bilinear": (rg.LearnedBilinear(), "score", {"score.weight": (3, 4, 4)}),
    "additive": (rg.LearnedAdditive(), "score", {"score.vector": (3, 4)}),
    "additive relu": (rg.LearnedAdditive("relu"), "score", {"score.vector": (3, 4)}),
    "location": (rg.LearnedLocation(11), "score", {"score.weight": (3, 11, 4)}),
    "entmax": (rg.LearnedEntmax(), "normalizer", {"normalizer.raw_alpha": (3,)}),
    "sink": (rg.LearnedSink(), "normalizer", {"normalizer.sink": (3,)}),
    "sigmoid": (rg.LearnedSigmoid(-1.6), "normalizer", {"normalizer.bias": (3,)}),
    "relative": (rg.LearnedRelativeBias(8, max_distance=16), "position_bias", {"position_bias.table": (8, 3)}),
    "alibi": (rg.ALiBiSlopes(learned=True), "position_bias", {"position_bias.slopes": (3,)}),
}


def layer_with(name: str) -> tuple[rg.MultiHeadAttention, dict[str, tuple[int, ...]]]:
    setting, argument, names = SETTINGS[name]
    torch.manual_seed(0)
    return rg.MultiHeadAttention(EMBED_DIM, HEADS, **{argument: setting}), names


@pytest.mark.parametrize("name", SETTINGS)
def test_its_tensors_are_parameters(name: str) -> None:
    layer, names = layer_with(name)
    plain = set(rg.MultiHeadAttention(EMBED_DIM, HEADS).state_dict())
    own = {key: tuple(x.shape) for key, x in layer.state_dict().items() if key not in plain}
    assert own == names
    assert set(names) <= {key for key, _ in layer.named_parameters()}
    other, _ = layer_with(name)
    with torch.no_grad():
        for x in other.parameters():
            x.add_(0.1)
    other.load_state_dict(layer.state_dict())
    x = torch.randn(2, LENGTH, EMBED_DIM)
    assert torch.equal(other(x), layer(x))


@pytest.mark.parametrize("backend", ["reference", "chunked"])
@pytest.mark.parametrize("name", SETTINGS)
def test_it_trains(name: str, backend: str) -> None:
    """Its own tensors alone, on what another layer answers: every one of them moves, and the loss falls."""
    layer, names = layer_with(name)
    layer.backend = backend
    teacher = copy.deepcopy(layer)
    torch.manual_seed(1)
    own = [x for key, x in layer.named_parameters() if key in names]
    with torch.no_grad():
        for key, x in teacher.named_parameters():
            if key in names:
                x.add_(torch.randn_like(x) * 0.7 * x.abs().mean().clamp(min=0.5))
    before = [x.detach().clone() for x in own]
    x = 2 * torch.randn(7, LENGTH, EMBED_DIM)
    target = teacher(x).detach()
    optimizer = torch.optim.Adam(own, lr=0.02)
    losses = []
    for _ in range(12):
        loss = (layer(x) - target).square().mean()
        optimizer.zero_grad()
        loss.backward()
        assert all(x.grad is not None and x.grad.isfinite().all() and x.grad.abs().sum() > 0 for x in own)
        optimizer.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < 0.9 * losses[0]
    assert not any(torch.equal(x, y) for x, y in zip(own, before, strict=True))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
@pytest.mark.parametrize("name", SETTINGS)
def test_it_goes_where_the_layer_goes(name: str, dtype: torch.dtype) -> None:
    layer, names = layer_with(name)
    assert layer.to(dtype)(torch.randn(2, LENGTH, EMBED_DIM, dtype=dtype)).dtype == dtype
    assert all(layer.state_dict()[key].dtype == dtype for key in names)


@pytest.mark.parametrize("name", SETTINGS)
def test_it_stands_beside_half_inputs_of_autocast(name: str) -> None:
    layer, _ = layer_with(name)
    with torch.autocast("cpu", torch.bfloat16):
        output = layer(torch.randn(2, LENGTH, EMBED_DIM))
    assert output.dtype == torch.bfloat16
    output.float().sum().backward()


@pytest.mark.parametrize("name", SETTINGS)
def test_reset_starts_again(name: str) -> None:
    layer, names = layer_with(name)
    first = copy.deepcopy(layer.state_dict())
    with torch.no_grad():
        for x in layer.parameters():
            x.add_(1)
    layer.reset_parameters()
    now = layer.state_dict()
    random = {"score.vector", "position_bias.table"} | ({"score.weight"} if name == "location" else set())
    for key in names:
        assert now[key].abs().mean() < first[key].abs().mean() + 0.5
        assert key in random or torch.equal(now[key], first[key])


def test_constant_slopes_follow_the_layer_and_are_not_saved() -> None:
    layer = rg.MultiHeadAttention(EMBED_DIM, 4, position_bias=rg.ALiBiSlopes())
    assert not any("position_bias" in key for key in [*layer.state_dict(), *dict(layer.named_parameters())])
    x = torch.randn(2, LENGTH, EMBED_DIM, dtype=torch.float64)
    layer = layer.double()
    plain = rg.MultiHeadAttention(EMBED_DIM, 4).double()
    plain.load_state_dict(layer.state_dict())
    slopes = rg.ALiBi(torch.tensor([2.0**-2, 2.0**-4, 2.0**-6, 2.0**-8], dtype=torch.float64))
    assert torch.equal(layer(x), plain(x, bias=slopes))


def test_alpha_starts_at_its_initial_value_and_stays_above_one() -> None:
    layer = rg.MultiHeadAttention(EMBED_DIM, HEADS, normalizer=rg.LearnedEntmax(1.25))
    assert layer.normalizer().alpha.tolist() == pytest.approx([1.25] * 3)
    with torch.no_grad():
        layer.normalizer.raw_alpha.fill_(-200.0)
    assert layer.normalizer().alpha.tolist() == pytest.approx([1.01] * 3)
    assert layer(torch.randn(1, LENGTH, EMBED_DIM)).isfinite().all()


def test_a_bilinear_score_starts_as_the_scaled_dot_product() -> None:
    layer = rg.MultiHeadAttention(EMBED_DIM, HEADS, score=rg.LearnedBilinear())
    plain = rg.MultiHeadAttention(EMBED_DIM, HEADS)
    plain.load_state_dict(layer.state_dict(), strict=False)
    x = torch.randn(2, LENGTH, EMBED_DIM)
    torch.testing.assert_close(layer(x), plain(x))


@torch.no_grad()
def test_an_additive_layer_is_bahdanaus_formula() -> None:
    """v . tanh(W s + U h), appendix A.1.2, with the layer's projections as W and U."""
    layer = rg.MultiHeadAttention(4, 1, key_dim=6, score=rg.LearnedAdditive()).double()
    s, h = torch.randn(1, 3, 4).double(), torch.randn(1, 5, 6).double()
    outputs = []
    for i in range(3):
        energy = [
            layer.score.vector[0] @ torch.tanh(layer.query_proj(s[0, i]) + layer.key_proj(h[0, j])) for j in range(5)
        ]
        weight = [math.exp(e) / sum(math.exp(f) for f in energy) for e in energy]
        outputs.append(layer.output_proj(sum(w * layer.value_proj(h[0, j]) for j, w in enumerate(weight))))
    torch.testing.assert_close(layer(s, h)[0], torch.stack(outputs), rtol=0, atol=1e-14)


def test_grouped_heads_take_learned_values() -> None:
    layer = rg.MultiHeadAttention(
        EMBED_DIM,
        4,
        num_kv_heads=2,
        score=rg.LearnedAdditive(),
        normalizer=rg.LearnedSink(),
        position_bias=rg.ALiBiSlopes(),
    )
    assert layer(torch.randn(2, LENGTH, EMBED_DIM)).shape == (2, LENGTH, EMBED_DIM)
