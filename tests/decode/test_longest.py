"""Decoding stops at the model's number of positions."""

import pytest
import torch

import regard as rg


@pytest.mark.parametrize("search", [rg.Greedy(), rg.Beam(3), rg.Sample(seed=0)])
def test_targets_end_where_positions_do(search):
    torch.manual_seed(0)
    vocabulary = rg.Vocabulary(size=9)
    sizes = {"embed_dim": 8, "encoder_layers": 1, "decoder_layers": 1}
    models = [
        rg.ConvS2S(rg.ConvS2SConfig(vocabulary=vocabulary, max_length=7, hidden_dim=8, **sizes)),
        rg.Transformer(
            rg.TransformerConfig(
                vocabulary=vocabulary, max_length=7, num_heads=2, ffn_dim=8, positions="learned", **sizes
            )
        ),
    ]
    for model in models:
        [[best, *_]] = rg.generate(model, [[3, 4, 5]], search=search)
        assert len(best.tokens) <= 7
