"""The loss in chunks against PyTorch's on all logits."""

import pytest
import torch
from torch.nn.functional import cross_entropy

from regard.data.batches import IGNORED, Batch
from regard.models.seq2seq import Vocabulary
from regard.models.transformer import Transformer, TransformerConfig
from regard.tasks import loss


@pytest.fixture
def module():
    torch.manual_seed(0)
    config = TransformerConfig(
        vocabulary=Vocabulary(size=23), embed_dim=8, num_heads=2, hidden_dim=12, encoder_layers=1, decoder_layers=1,
        dropout=0.0, output_bias=True,
    )  # fmt: skip
    return Transformer(config).double()


@pytest.fixture
def batch():
    source, target = torch.randint(3, 23, (5, 7)), torch.randint(3, 23, (5, 11))
    source[1, 4:] = 0
    out = torch.randint(3, 23, (5, 11))
    out[1, 3:] = out[4, 10:] = IGNORED
    return Batch(source, target, out, int((out != IGNORED).sum()))


@pytest.mark.parametrize("chunk", [23, 23 * 7, 10**6])  # one token, some, all
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_losses_and_gradients_are_those_of_all_logits(module, batch, smoothing, chunk, monkeypatch):
    monkeypatch.setattr(loss, "CHUNK", chunk)
    found = loss.learn(module, batch, smoothing, 2 * batch.tokens)  # half of a step of two batches
    gradients = {name: p.grad.clone() for name, p in module.named_parameters()}
    module.zero_grad()
    logits, target = module(batch.source, batch.target_in).logits.flatten(0, 1), batch.target_out.flatten()
    expected = cross_entropy(logits, target, label_smoothing=smoothing, ignore_index=IGNORED, reduction="sum")
    (expected / (2 * batch.tokens)).backward()
    plain = cross_entropy(logits, target, ignore_index=IGNORED, reduction="sum")
    torch.testing.assert_close(found.smoothed.double(), expected, rtol=1e-6, atol=0)  # its sum is kept in float32
    torch.testing.assert_close(found.plain.double(), plain, rtol=1e-6, atol=0)
    for name, parameter in module.named_parameters():
        torch.testing.assert_close(gradients[name], parameter.grad)
    measured = loss.measure(module, batch, smoothing)
    torch.testing.assert_close(measured.smoothed.double(), expected, rtol=1e-6, atol=0)


def test_half_precision_is_summed_in_float32(module, batch):
    module = module.float()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        low = loss.learn(module, batch, 0.1, batch.tokens)
    high = loss.measure(module, batch, 0.1)
    assert low.plain.dtype == torch.float32
    torch.testing.assert_close(low.plain, high.plain, rtol=0.02, atol=0)
