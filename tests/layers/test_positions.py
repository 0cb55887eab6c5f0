"""Positions against the papers' formulas, by complex numbers and by hand."""

import math

import pytest
import torch
from torch import Tensor

import regard as rg

BATCH, HEADS, LENGTH, HEAD_DIM = 2, 3, 5, 14


def heads(dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(BATCH, HEADS, LENGTH, HEAD_DIM, dtype=dtype)


def turned_as_complex(first: Tensor, second: Tensor, positions_BL: Tensor, base: float) -> tuple[Tensor, Tensor]:
    """(first + i second) e^(i m theta_i): equation 34 of Su et al. 2021, as section 3.2.1 derives it."""
    count = first.shape[-1]
    theta = torch.tensor([base ** (-2 * i / (2 * count)) for i in range(count)], dtype=torch.float64)
    turn = torch.polar(torch.ones(()).double(), positions_BL.double()[:, None, :, None] * theta)
    product = torch.complex(first, second) * turn
    return product.real, product.imag


@pytest.mark.parametrize(
    "positions", [torch.tensor([[0, 1, 2, 3, 4]]), torch.tensor([[7, 8, 9, 10, 11], [0, 1, 2, 3, 4]])]
)
def test_rotary_turns_complex_numbers(positions: Tensor) -> None:
    x = heads()
    found = rg.Rotary(HEAD_DIM)(x, positions)
    real, imaginary = turned_as_complex(x[..., 0::2], x[..., 1::2], positions, 10_000.0)
    torch.testing.assert_close(found[..., 0::2], real, rtol=0, atol=1e-14)
    torch.testing.assert_close(found[..., 1::2], imaginary, rtol=0, atol=1e-14)


def test_rotary_of_halves() -> None:
    x, positions = heads(), torch.arange(3, 8)[None]
    found = rg.Rotary(HEAD_DIM, base=500.0, interleaved=False)(x, positions)
    real, imaginary = turned_as_complex(x[..., :7], x[..., 7:], positions, 500.0)
    torch.testing.assert_close(found, torch.cat([real, imaginary], -1), rtol=0, atol=1e-14)


def test_the_two_layouts_are_permutations_of_each_other() -> None:
    x, positions = heads(), torch.arange(LENGTH)[None]
    order = torch.arange(HEAD_DIM).reshape(2, -1).T.flatten()  # 0, 7, 1, 8, ...
    neighbors = rg.Rotary(HEAD_DIM)(x[..., order], positions)
    halves = rg.Rotary(HEAD_DIM, interleaved=False)(x, positions)
    assert torch.equal(neighbors, halves[..., order])


@pytest.mark.parametrize("interleaved", [True, False])
def test_a_fraction_leaves_the_rest(interleaved: bool) -> None:
    x, positions = heads(), torch.arange(LENGTH)[None]
    found = rg.Rotary(HEAD_DIM, fraction=6 / 14, interleaved=interleaved)(x, positions)
    assert torch.equal(found[..., 6:], x[..., 6:])
    assert torch.equal(found[..., :6], rg.Rotary(6, interleaved=interleaved)(x[..., :6], positions))


@pytest.mark.parametrize("interleaved", [True, False])
def test_scores_depend_on_distance_only(interleaved: bool) -> None:
    rotary, q, k = rg.Rotary(HEAD_DIM, interleaved=interleaved), heads(), heads()
    positions = torch.arange(LENGTH)[None]

    def scores(shift: int) -> Tensor:
        return rotary(q, positions + shift) @ rotary(k, positions + shift).transpose(-1, -2)

    torch.testing.assert_close(scores(1000), scores(0), rtol=0, atol=1e-10)
    assert not torch.allclose(scores(0), q @ k.transpose(-1, -2))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_inputs_are_turned_in_float32(dtype: torch.dtype) -> None:
    """Positions beyond 256 are not numbers of bfloat16."""
    x, positions = heads(dtype), torch.arange(1001, 1001 + LENGTH)[None]
    found = rg.Rotary(HEAD_DIM).to(dtype)(x, positions)
    assert found.dtype == dtype
    assert torch.equal(found, rg.Rotary(HEAD_DIM)(x.float(), positions).to(dtype))


def test_sinusoids_by_hand() -> None:
    table = rg.SinusoidalPositions(6)(torch.zeros(1, 4, 6, dtype=torch.float64), start=3)
    for row, position in enumerate([3, 4, 5, 6]):
        for i in range(3):
            angle = position / 10_000 ** (2 * i / 6)
            assert table[0, row, 2 * i] == pytest.approx(math.sin(angle), abs=1e-14)
            assert table[0, row, 2 * i + 1] == pytest.approx(math.cos(angle), abs=1e-14)


@pytest.mark.parametrize("layer", [rg.SinusoidalPositions(6), rg.LearnedPositions(16, 6)], ids=["sines", "learned"])
def test_positions_are_added_from_the_start(layer: torch.nn.Module) -> None:
    x = torch.randn(2, 9, 6)
    whole = layer(x)
    torch.testing.assert_close(torch.cat([layer(x[:, :4]), layer(x[:, 4:], start=4)], dim=1), whole)
    each = layer(torch.stack([x[0, :4], x[1, 5:]]), start=torch.tensor([0, 5]))
    torch.testing.assert_close(each, torch.stack([whole[0, :4], whole[1, 5:]]))
    assert layer(x.bfloat16()).dtype == torch.bfloat16


def test_learned_positions_learn() -> None:
    layer = rg.LearnedPositions(5, 3)
    assert list(layer.state_dict()) == ["weight"]
    layer(torch.zeros(2, 2, 3), start=1).sum().backward()
    assert torch.equal(layer.weight.grad, torch.tensor([0.0, 2, 2, 0, 0])[:, None].expand(5, 3))


def test_they_say_what_they_are() -> None:
    assert str(rg.Rotary(8)) == "Rotary(head_dim=8, base=10000, interleaved=True, fraction=1)"
    assert str(rg.SinusoidalPositions(8)) == "SinusoidalPositions(embed_dim=8, base=10000, interleaved=True)"
    assert str(rg.LearnedPositions(4, 8)) == "LearnedPositions(num_positions=4, embed_dim=8)"
