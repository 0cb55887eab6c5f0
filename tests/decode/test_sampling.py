"""Sampling: the frequency of each token, and independence of the batch."""

import pytest
import torch

from regard.decode.generate import generate
from regard.decode.sampling import NUCLEUS, inverse_cdf, sample_tokens, source_keys
from regard.decode.search import Greedy, Sample
from tests.decode.toy import Toy, same, total

ROWS = 40_000
LOGITS = torch.tensor([0.5, -1.0, 2.0, 0.0, 1.0])


def shares(search: Sample) -> torch.Tensor:
    """The frequency of each token for evenly spaced random numbers."""
    drawn = sample_tokens(LOGITS.expand(ROWS, -1), search, (torch.arange(ROWS) + 0.5) / ROWS)
    return drawn.bincount(minlength=5) / ROWS


@pytest.mark.parametrize("temperature", [0.5, 1.0, 3.0])
def test_shares_are_probabilities(temperature: float) -> None:
    expected = (LOGITS / temperature).softmax(0)
    assert shares(Sample(temperature=temperature)).allclose(expected, atol=2 / ROWS)
    assert shares(Sample(temperature=temperature, top_p=1.0)).allclose(expected, atol=2 / ROWS)
    assert shares(Sample(temperature=temperature, top_k=9)).allclose(expected, atol=2 / ROWS)


def test_top_k() -> None:
    hidden = LOGITS.masked_fill(torch.tensor([True, True, False, True, False]), -torch.inf)
    assert shares(Sample(top_k=2)).allclose(hidden.softmax(0), atol=2 / ROWS)
    assert shares(Sample(top_k=1)).tolist() == [0, 0, 1, 0, 0]


@pytest.mark.parametrize(("top_p", "left"), [(0.1, 1), (0.56, 1), (0.57, 2), (0.77, 2), (0.78, 3), (0.98, 5)])
def test_top_p(top_p: float, left: int) -> None:
    # The sums are 0.563, 0.770, 0.896, 0.972 and 1.
    drawn = shares(Sample(top_p=top_p))
    assert drawn.count_nonzero() == left
    best = LOGITS.topk(left).indices
    assert drawn[best].allclose(LOGITS[best].softmax(0), atol=2 / ROWS)


def test_top_p_is_of_what_top_k_leaves() -> None:
    # Of 0.563 and 0.207 the first has 0.731.
    assert shares(Sample(top_k=2, top_p=0.73)).count_nonzero() == 1
    assert shares(Sample(top_k=2, top_p=0.74)).count_nonzero() == 2


@pytest.mark.parametrize("top_p", [0.01, 0.9])
def test_top_p_of_a_large_vocabulary(top_p: float) -> None:
    logits = torch.linspace(0.0, 1.0, 8 * NUCLEUS)[None]
    sums = logits.flip(1).softmax(1).cumsum(1)
    left = int((sums < top_p).sum()) + 1
    least = sample_tokens(logits, Sample(top_p=top_p), torch.tensor([1 - 2**-24]))
    assert abs(int(least) - (8 * NUCLEUS - left)) <= 1


def test_what_has_no_probability_is_not_drawn() -> None:
    weights = torch.tensor([[0.0, 0.5, 0.0, 0.5, 0.0]])
    assert [int(inverse_cdf(weights, torch.tensor([x]))) for x in (0.0, 0.49, 0.5, 1 - 2**-24)] == [1, 1, 3, 3]


SOURCES = [[3, 4], [5], [3, 4], [5, 5, 3, 4], [3, 4], [4]]


@pytest.mark.parametrize("search", [Sample(seed=7), Sample(0.8, top_k=4, seed=7), Sample(top_p=0.8, seed=7)])
def test_the_same_alone_and_in_company(search: Sample) -> None:
    model = Toy(7, patience=2.0)
    together = generate(model, SOURCES, search=search)
    assert generate(model, SOURCES, search=search, batch_size=2) == together
    alone = [generate(model, [source], search=search)[0][0] for source in SOURCES]
    firsts = [0, 1, 3, 5]  # the third source is the second of its kind
    assert [together[i][0].tokens for i in firsts] == [alone[i].tokens for i in firsts]


def test_equal_sources_get_different_samples() -> None:
    found = generate(Toy(7, patience=3.0), [[3, 4]] * 20, search=Sample(seed=1))
    assert len({tuple(one.tokens) for [one] in found}) > 5


def test_a_seed_repeats_and_none_does_not() -> None:
    model = Toy(7, patience=3.0)
    sample = [generate(model, [[3, 4]] * 9, search=Sample(seed=seed)) for seed in (1, 1, 2)]
    assert sample[0] == sample[1]
    assert sample[0] != sample[2]
    torch.manual_seed(0)
    free = [generate(model, [[3, 4]] * 9, search=Sample()) for _ in range(2)]
    assert free[0] != free[1]


def test_targets_longer_than_the_numbers_made_at_once() -> None:
    [[one]] = generate(Toy(7, patience=1e4), [[3, 4]], search=Sample(seed=3, temperature=50.0), max_length=200)
    assert len(one.tokens) == 200
    assert one.tokens[:64] != one.tokens[64:128]


def test_scores_are_the_models_own() -> None:
    model = Toy(7, patience=1.0)
    for source, [one] in zip(SOURCES, generate(model, SOURCES, search=Sample(3.0, top_k=5, seed=2)), strict=True):
        tokens = [*one.tokens, model.vocabulary.eos] if one.finished else one.tokens
        assert one.score == pytest.approx(total(model, source, tokens) / len(tokens), abs=1e-4)


def test_top_k_1_is_greedy() -> None:
    model = Toy(7, patience=1.0)
    drawn, best = (generate(model, SOURCES, search=search) for search in (Sample(top_k=1), Greedy()))
    assert all(map(same, drawn, best))


def test_keys_tell_sources_apart() -> None:
    assert source_keys([[1, 2], [12], [1, 2]]).unique(dim=0).shape == (3, 2)
    assert source_keys([[5], [1, 2]])[1].equal(source_keys([[1, 2]])[0])
