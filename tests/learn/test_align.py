"""Attention learns where to look: each kind aligns a reversed sequence from nothing."""

import pytest
import torch
from torch import nn
from torch.nn import functional

import regard as rg

LENGTH, TOKENS, DIM, STEPS = 9, 12, 32, 400
KINDS = {
    "dot": {},
    "additive, Bahdanau 2014": {"score": rg.LearnedAdditive()},
    "bilinear, Luong 2015": {"score": rg.LearnedBilinear()},
    "entmax": {"normalizer": rg.LearnedEntmax(1.3)},
    "sigmoid": {"normalizer": rg.LearnedSigmoid(-2.0)},
}


class Reverser(nn.Module):
    """Queries are positions only; keys are tokens with their positions: what is read must be found by position."""

    def __init__(self, **settings: object) -> None:
        super().__init__()
        self.token, self.place = nn.Embedding(TOKENS, DIM), nn.Embedding(LENGTH, DIM)
        self.asked = nn.Embedding(LENGTH, DIM)
        self.attention = rg.MultiHeadAttention(DIM, 1, backend="chunked", **settings)
        self.out = nn.Linear(DIM, TOKENS)

    def forward(self, tokens: torch.Tensor, summary: rg.Summary) -> tuple[torch.Tensor, rg.SummaryResult]:
        keys = self.token(tokens) + self.place.weight
        queries = self.asked.weight.expand(len(tokens), -1, -1)
        output, result = self.attention(queries, keys, self.token(tokens), summary=summary)
        return self.out(output), result


@pytest.mark.parametrize("kind", KINDS)
def test_attention_learns_to_align(kind: str) -> None:
    torch.manual_seed(0)
    model = Reverser(**KINDS[kind])
    optimizer = torch.optim.Adam(model.parameters(), lr=5e-3)
    for _ in range(STEPS):
        tokens = torch.randint(TOKENS, (64, LENGTH))
        logits, _ = model(tokens, rg.Summary(top_k=1))
        loss = functional.cross_entropy(logits.flatten(0, 1), tokens.flip(1).flatten())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    tokens = torch.randint(TOKENS, (200, LENGTH))
    with torch.no_grad():
        logits, result = model(tokens, rg.Summary(top_k=1))
    exact = (logits.argmax(-1) == tokens.flip(1)).float().mean()
    aligned = (result.top_keys.flatten(2)[:, 0] == torch.arange(LENGTH).flip(0)).float().mean()
    assert exact > 0.99
    assert aligned > 0.95
