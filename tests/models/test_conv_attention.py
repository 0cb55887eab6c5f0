"""Residual networks with attention: shapes, independence of the batch, and what is recorded of them."""

from pathlib import Path
from typing import Any

import pytest
import torch

import regard as rg
from regard.errors import ConfigError, ShapeError
from regard.models.conv_attention import ConvAttention, ConvAttentionConfig
from regard.tasks.pictures import PictureEncoder
from regard.vision.processor import PictureProcessor

SMALL: dict[str, Any] = {
    "image_size": 12, "channels": 4, "num_blocks": 1, "attention_dim": 6, "num_heads": 2, "num_labels": 3,
}  # fmt: skip
VARIANTS: tuple[dict[str, Any], ...] = (
    {},
    {"attention_kind": "non-local", "positions": "relative-bias"},
    {"attention_kind": "non-local", "positions": "none", "pooling": "attention"},
    {"attention_kind": "none"},
    {"attention_stages": 2, "pooling": "attention", "num_blocks": 2},
)


def model(**changes: Any) -> ConvAttention:
    """A model whose weights, statistics included, are away from zeros and ones."""
    torch.manual_seed(0)
    network = ConvAttention(ConvAttentionConfig(**{**SMALL, **changes})).double()
    with torch.no_grad():
        for parameter in network.parameters():
            parameter += 0.2 * torch.randn_like(parameter)
        network.train()(torch.randn(8, 3, 12, 12, dtype=torch.float64))
    return network.eval()


def pictures(count: int, *size: int) -> torch.Tensor:
    return torch.randn(count, 3, *(size or (12, 12)), dtype=torch.float64, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("changes", VARIANTS)
def test_shapes_of_any_size(changes: dict[str, Any]) -> None:
    network = model(**changes)
    for height, width, cells in ((12, 12, 9), (12, 20, 15), (17, 15, 12), (4, 4, 1)):
        output = network(pictures(2, height, width))
        assert output.hidden.shape == (2, cells, 16)
        assert output.logits is not None
        assert output.logits.shape == (2, 3)
    wider = network(pictures(2, 14, 15))
    torch.testing.assert_close(wider.logits, network(pictures(2, 14, 15)[:, :, :12, :12]).logits)


@pytest.mark.parametrize("changes", VARIANTS)
def test_a_picture_alone_has_the_logits_that_it_has_in_a_batch(changes: dict[str, Any]) -> None:
    network, batch = model(**changes).float(), pictures(5).float()
    together = network(batch).logits
    alone = torch.cat([network(batch[i : i + 1]).logits for i in range(5)])
    assert together.std(0).min() > 1e-3
    torch.testing.assert_close(alone, together, rtol=0, atol=1e-5)


@pytest.mark.parametrize("changes", VARIANTS)
def test_all_parameters_get_gradients(changes: dict[str, Any]) -> None:
    network = model(**changes).train()
    network(pictures(4)).logits.square().sum().backward()
    without = {name for name, x in network.named_parameters() if x.grad is None or not x.grad.any()}
    assert without == set()


def test_what_the_lens_records() -> None:
    attending = [changes for changes in VARIANTS if changes.get("attention_kind") != "none"]
    for changes, cells in zip(attending, ([9], [9], [9, 9], [36, 36, 9, 9, 9]), strict=True):
        network = model(**changes).float()
        with torch.no_grad(), rg.record(network, weights=True) as seen:
            network(pictures(1).float())
        assert [record.weights.shape[-1] for record in seen.values()] == cells
        for record in seen.values():
            torch.testing.assert_close(record.weights.sum(-1), torch.ones(record.weights.shape[:-1]))


@pytest.mark.parametrize("changes", VARIANTS)
def test_a_saved_model_gives_the_same(changes: dict[str, Any], tmp_path: Path) -> None:
    network = model(**changes).float()
    PictureEncoder(network, None, {"labels": ["a", "b", "c"]}, PictureProcessor(size=(12, 12))).save(tmp_path / "model")
    loaded = rg.load(tmp_path / "model").module.eval()
    assert loaded.config == network.config
    assert torch.equal(loaded(pictures(2).float()).logits, network(pictures(2).float()).logits)


def test_errors() -> None:
    for changes, expected in (
        ({"attention_kind": "soft"}, "unknown attention_kind 'soft'"),
        ({"attention_stages": 4}, "attention_stages=4"),
        ({"image_size": 3}, "image_size=3"),
        ({"channels": 0}, "channels=0"),
    ):
        with pytest.raises(ConfigError, match=expected):
            ConvAttentionConfig(**{**SMALL, **changes})
    with pytest.raises(ConfigError, match="attention_dim=16 leaves the convolution none of the 16"):
        ConvAttention(ConvAttentionConfig(**{**SMALL, "attention_dim": 16}))
    for shape in ((1, 1, 12, 12), (3, 12, 12), (1, 3, 3, 12)):
        with pytest.raises(ShapeError, match=r"expected \(B, 3, H, W\) with sides of at least 4"):
            model()(torch.zeros(shape, dtype=torch.float64))
