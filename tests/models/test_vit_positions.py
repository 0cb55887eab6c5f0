"""The positions of a vision Transformer's patches: 1-D, 2-D, relative and none; and its convolutional stem."""

from pathlib import Path
from typing import Any, Literal, cast

import pytest
import torch
from torch import Tensor
from torch.nn import functional

import regard as rg
from regard.errors import ConfigError, UnsupportedError
from regard.models.vit import ViT, ViTConfig
from regard.models.vit_names import to_vit
from regard.tasks.pictures import PictureEncoder
from regard.vision.processor import PictureProcessor

Kind = Literal["1d", "2d", "relative-bias", "relative-key", "none"]
TINY: dict[str, Any] = {
    "image_size": 12,
    "patch_size": 4,
    "embed_dim": 16,
    "num_layers": 2,
    "num_heads": 2,
    "ffn_dim": 32,
}


def model(positions: Kind) -> ViT:
    torch.manual_seed(0)
    vit = ViT(ViTConfig(**TINY, num_labels=3, positions=positions)).eval().double()
    for name, parameter in vit.named_parameters():
        if "positions" in name:
            torch.nn.init.normal_(parameter)
    return vit


def class_logits(vit: ViT, pictures: Tensor) -> Tensor:
    logits: Tensor = vit(pictures).logits
    return logits


def patches_reversed(pictures: Tensor) -> Tensor:
    """The same patches in the opposite order."""
    patches = functional.unfold(pictures, 4, stride=4).flip(2)
    picture: Tensor = functional.fold(patches, pictures.shape[2:], 4, stride=4)
    return picture


@pytest.mark.parametrize("positions", ["1d", "2d", "relative-bias", "relative-key", "none"])
def test_only_without_positions_the_order_of_patches_does_not_matter(positions: Kind) -> None:
    vit, pictures = model(positions), torch.randn(2, 3, 12, 12, dtype=torch.float64)
    difference = (class_logits(vit, pictures) - class_logits(vit, patches_reversed(pictures))).abs().max()
    assert (difference < 1e-12) == (positions == "none")


def test_2d_positions_equal_1d_ones_of_the_same_values() -> None:
    two, one = model("2d"), model("1d")
    state = two.state_dict()
    rows, columns = state.pop("row_positions")[0], state.pop("column_positions")[0]
    patches = [torch.cat([rows[i], columns[j]]) for i in range(3) for j in range(3)]
    state["positions"] = torch.stack([torch.zeros(16, dtype=torch.float64), *patches])[None]
    one.load_state_dict(state)
    pictures = torch.randn(2, 3, 12, 12, dtype=torch.float64)
    torch.testing.assert_close(class_logits(two, pictures), class_logits(one, pictures), rtol=0, atol=1e-12)


def test_2d_positions_of_a_rectangle_are_those_of_each_axis() -> None:
    vit = model("2d")
    _, square = vit._positions(3, 3)
    _, wide = vit._positions(3, 5)
    assert wide.shape == (1, 15, 16)
    of_rows = square.reshape(3, 3, 16)[:, 0, :8]
    torch.testing.assert_close(wide.reshape(3, 5, 16)[:, 4, :8], of_rows, rtol=0, atol=1e-12)


@pytest.mark.parametrize(
    ("positions", "count"), [("1d", 1), ("2d", 2), ("relative-bias", 2), ("relative-key", 4), ("none", 0)]
)
def test_positions_get_gradients_through_another_size(positions: Kind, count: int) -> None:
    vit, pictures = model(positions), torch.randn(2, 3, 12, 20, dtype=torch.float64)
    weights = torch.randn(
        2, 16, 16, dtype=torch.float64
    )  # the class token alone does not see the last layer's positions
    (vit(pictures).hidden * weights).sum().backward()
    gradients = [x.grad for name, x in vit.named_parameters() if "positions" in name]
    assert len(gradients) == count
    assert all(gradient is not None and gradient.abs().max() > 1e-6 for gradient in gradients)


@pytest.mark.parametrize("positions", ["2d", "relative-bias", "relative-key", "none"])
def test_a_saved_model_keeps_its_positions(positions: Kind, tmp_path: Path) -> None:
    vit = model(positions).float()
    PictureEncoder(vit, None, {"labels": ["a", "b", "c"]}, PictureProcessor(size=(12, 12))).save(tmp_path / "model")
    loaded = rg.load(tmp_path / "model").module
    pictures = torch.randn(1, 3, 12, 12)
    assert loaded.config.positions == positions
    assert torch.equal(class_logits(loaded.eval(), pictures), class_logits(vit, pictures))


@pytest.mark.parametrize("positions", ["relative-bias", "relative-key"])
def test_relative_positions_are_those_of_each_layer(positions: Kind) -> None:
    """The class token has none: with all other weights alike, its first query sees each patch as without positions."""
    vit, pictures = model(positions), torch.randn(1, 3, 12, 12, dtype=torch.float64)
    with rg.record(vit, weights=True) as seen:
        class_logits(vit, pictures)
    first = next(iter(seen.values())).weights
    plain = ViT(ViTConfig(**TINY, num_labels=3, positions="none")).eval().double()
    plain.load_state_dict(vit.state_dict(), strict=False)
    with rg.record(plain, weights=True) as seen:
        class_logits(plain, pictures)
    expected = next(iter(seen.values())).weights
    torch.testing.assert_close(first[:, :, 0], expected[:, :, 0], rtol=0, atol=1e-6)
    assert (first[:, :, 1:] - expected[:, :, 1:]).abs().max() > 0.05


def test_a_convolutional_stem_sees_across_patches() -> None:
    torch.manual_seed(0)
    settings = {**TINY, "num_labels": 3}
    for stem, across in (("patch", False), ("convolution", True)):
        vit = ViT(ViTConfig(**{**settings, "num_layers": 1, "positions": "none"}, stem=stem)).eval()
        pictures = torch.randn(1, 3, 12, 20)
        changed = pictures.clone()
        changed[:, :, 3, 3] += 1  # the corner of the first patch, beside those of three others
        embedded = [vit.patch_embedding(x).flatten(2)[0].T for x in (pictures, changed)]
        differ = (embedded[0] - embedded[1]).abs().sum(1) > 1e-6
        assert bool(differ[0])
        assert bool(differ[1:].any()) == across
        assert vit(pictures).hidden.shape == (1, 16, 16)


def test_errors() -> None:
    with pytest.raises(UnsupportedError, match="ViT has no stem='convolution'; expected 'patch'"):
        to_vit(ViT(ViTConfig(**TINY, stem="convolution")))
    with pytest.raises(ConfigError, match='embed_dim=15 must be even for positions="2d"'):
        ViTConfig(**{**TINY, "embed_dim": 15, "num_heads": 3}, positions="2d")
    with pytest.raises(ConfigError, match="unknown positions"):
        ViTConfig(**TINY, positions=cast(Kind, "3d"))
    with pytest.raises(UnsupportedError, match="ViT has no positions='none'; expected '1d'"):
        to_vit(model("none"))
