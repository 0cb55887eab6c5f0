"""A Transformer on the grid of a picture's features: steps, weights, sizes and errors."""

import pytest
import torch

import regard as rg
from regard.errors import ConfigError, ShapeError
from regard.models.picture_transformer import PictureTransformer, PictureTransformerConfig

SIZES = {"image_size": 8, "image_width": 24, "channels": 4, "embed_dim": 16, "num_heads": 2, "ffn_dim": 24}


def model(**changes: int) -> PictureTransformer:
    torch.manual_seed(0)
    return PictureTransformer(PictureTransformerConfig(vocabulary=rg.Vocabulary(size=20), **{**SIZES, **changes}))


def test_steps_give_the_logits_of_the_whole_target() -> None:
    module = model().eval()
    pictures, targets = torch.randn(3, 3, 8, 24), torch.randint(3, 20, (3, 5))
    targets[:, 0] = 1
    with torch.no_grad():
        expected = module(pictures, None, targets).logits
        state, tokens = module.prefill(pictures)
        steps = [module.step(tokens[:, None], state)]
        steps += [module.step(targets[:, i : i + 1], state) for i in range(1, 5)]
    torch.testing.assert_close(torch.cat(steps, 1), expected, rtol=0, atol=1e-5)
    alone = torch.cat(
        [module(picture[None], None, row[None]).logits for picture, row in zip(pictures, targets, strict=True)]
    )
    torch.testing.assert_close(alone, expected, rtol=0, atol=1e-5)


def test_weights_are_those_of_the_last_layer() -> None:
    module = model(decoder_layers=3).eval()
    pictures, targets = torch.randn(2, 3, 8, 24), torch.tensor([[1, 5, 6]] * 2)
    with torch.no_grad(), rg.record(module, weights=True) as recording:
        module(pictures, None, targets)
    weights = module.attention_weights(pictures, targets)
    assert weights.shape == (2, 2, 3, 12)
    torch.testing.assert_close(weights.sum(-1), torch.ones(2, 2, 3))
    torch.testing.assert_close(weights, recording["decoder.2.cross_attention"].weights, rtol=0, atol=1e-6)


def test_every_parameter_learns() -> None:
    module = model()
    labels = torch.tensor([[5, 6, 2], [5, 2, -100]])
    output = module(torch.randn(2, 3, 8, 24), None, torch.tensor([[1, 5, 6]] * 2))
    loss = output.cross_entropy(labels)
    assert loss.count == 5
    loss.smoothed.backward()
    for name, parameter in module.named_parameters():
        assert parameter.grad is not None, name


def test_misuse() -> None:
    with pytest.raises(ConfigError, match="image_width=22 must be a multiple of 4"):
        model(image_width=22)
    with pytest.raises(ShapeError, match=r"expected pictures, floats of shape \(batch, 3, 8, 24\)"):
        model()(torch.zeros(1, 3, 24, 8), None, torch.tensor([[1]]))
