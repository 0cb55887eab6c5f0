"""The Transformer against the transformers package's MarianMTModel: weights, logits, gradients, and decoded tokens."""

import pytest
import torch

from regard.decode.generate import generate
from regard.decode.search import Beam, Greedy
from regard.models.marian import from_marian, to_marian
from regard.models.seq2seq import Vocabulary
from regard.models.transformer import Transformer, TransformerConfig
from tests.models.inputs import lengths_of

transformers = pytest.importorskip("transformers")

SIZE = 47
VARIANTS = [
    {"positions": "sinusoidal"},
    {"positions": "sinusoidal-halves", "activation": "swish", "output_bias": True},
    {"encoder_layers": 3, "decoder_layers": 1, "scale_embedding": False, "activation": "gelu"},
]


def pair(dtype=torch.float64, **changes):
    """A random model of ours, and Marian with its weights."""
    torch.manual_seed(0)
    sizes = {"embed_dim": 24, "num_heads": 3, "ffn_dim": 40, "encoder_layers": 2, "decoder_layers": 2}
    config = TransformerConfig(vocabulary=Vocabulary(size=SIZE), dropout=0.0, **{**sizes, **changes})
    ours = Transformer(config).eval()
    with torch.no_grad():
        for parameter in ours.parameters():
            parameter += 0.1 * torch.randn_like(parameter)
    fields, state = to_marian(ours)
    theirs = transformers.MarianMTModel(
        transformers.MarianConfig(**{**fields, "forced_eos_token_id": None, "bad_words_ids": None})
    ).eval()
    left = theirs.load_state_dict(state, strict=False)
    assert not left.unexpected_keys
    assert all("embed_positions" in name for name in left.missing_keys)  # which it computes
    return ours.to(dtype), theirs.to(dtype)


@pytest.fixture
def tokens():
    torch.manual_seed(1)
    source, target = torch.randint(3, SIZE, (5, 11)), torch.randint(3, SIZE, (5, 7))
    source[1, 6:] = source[3, 2:] = 0
    return source, target


@pytest.mark.parametrize("changes", VARIANTS)
def test_logits_and_gradients_are_marians(changes, tokens):
    ours, theirs = pair(**changes)
    source, target = tokens
    mine = ours(source, lengths_of(source), target).logits
    other = theirs(input_ids=source, attention_mask=(source != 0).long(), decoder_input_ids=target).logits
    # Marian's positions are kept in float32, whatever the model's precision.
    torch.testing.assert_close(mine, other, rtol=0, atol=2e-6)
    mine.square().mean().backward()
    other.square().mean().backward()
    expected = theirs.model.shared.weight.grad
    if changes.get("positions") == "sinusoidal-halves":
        torch.testing.assert_close(ours.embedding.weight.grad, expected, rtol=0, atol=2e-6)


@pytest.mark.parametrize("changes", VARIANTS)
def test_marians_weights_come_back(changes, tokens):
    ours, theirs = pair(torch.float32, **changes)
    again = from_marian(theirs.config.to_dict(), theirs.state_dict())
    source, target = tokens
    found, expected = (model(source, lengths_of(source), target).logits for model in (again, ours))
    torch.testing.assert_close(found, expected, rtol=0, atol=5e-6)


@pytest.mark.parametrize("beams", [1, 4])
def test_decoded_tokens_are_marians(beams):
    ours, theirs = pair(torch.float32, activation="swish")
    lengths = torch.randint(1, 15, (40,))
    sources = [torch.randint(3, SIZE, (int(n),)).tolist() for n in lengths]
    padded = torch.zeros(len(sources), int(lengths.max()) + 1, dtype=torch.int64)
    for i, source in enumerate(sources):
        padded[i, : len(source) + 1] = torch.tensor([*source, 2])
    found = theirs.generate(
        input_ids=padded, attention_mask=(padded != 0).long(), num_beams=beams, do_sample=False, max_new_tokens=14,
        early_stopping=False, length_penalty=1.0, output_scores=True, return_dict_in_generate=True,
    )  # fmt: skip
    mine = generate(ours, sources, search=Greedy() if beams == 1 else Beam(beams), max_length=14)
    for row, (best, *_) in zip(found.sequences.tolist(), mine, strict=True):
        ended = row[1:].index(2) if 2 in row[1:] else 14
        assert best.tokens == row[1 : 1 + ended]
    if beams > 1:
        scores = torch.tensor([best.score for best, *_ in mine])
        torch.testing.assert_close(scores, found.sequences_scores, rtol=0, atol=1e-5)
