"""Beam search against exhaustive search and a plain beam search, on a toy model."""

import pytest
import torch

from regard.decode.beam import continuations
from regard.decode.constraints import Constraints, ConstraintState
from regard.decode.generate import generate
from regard.decode.search import Beam
from regard.models.seq2seq import Vocabulary
from tests.decode.toy import Toy, exhaustive, plain_beam, same

SOURCES = [[3, 4], [4], [3, 3, 4, 3], [], [4, 4, 3]]


@pytest.mark.parametrize("penalty", [0.0, 1.0, 2.0])
@pytest.mark.parametrize("seed", range(3))
def test_a_beam_that_holds_everything_finds_the_best(seed: int, penalty: float) -> None:
    model = Toy(4, seed)
    search = Beam(200, length_penalty=penalty, n_best=10)
    for source in ([3, 1], [2]):
        [found] = generate(model, [source], search=search, max_length=4)
        assert same(found, exhaustive(model, source, 4, penalty)[:10])


@pytest.mark.parametrize("size", [1, 2, 3, 5])
@pytest.mark.parametrize("penalty", [-0.5, 0.0, 1.0, 1.7])
def test_the_rules(size: int, penalty: float) -> None:
    for seed in range(6):
        model = Toy(6, seed, spread=1.0 + seed % 3, patience=seed % 4)
        search = Beam(size, length_penalty=penalty, n_best=size)
        found = generate(model, SOURCES, search=search, max_length=lambda length: 4 + length)
        for hypotheses, source in zip(found, SOURCES, strict=True):
            assert same(hypotheses, plain_beam(model, source, 4 + len(source), search))


def test_the_duties_of_tokens_may_be_as_in_marian() -> None:
    model, search = Toy(6, 2, patience=1.0), Beam(3, n_best=3)
    model.vocabulary = Vocabulary(size=6, pad=5, bos=5, eos=0)
    found = generate(model, SOURCES, search=search, max_length=7)
    assert all(same(x, plain_beam(model, y, 7, search)) for x, y in zip(found, SOURCES, strict=True))


def test_what_reaches_the_greatest_length_is_not_finished() -> None:
    model = Toy(6, patience=50.0)
    [[best]] = generate(model, [[3]], max_length=7)
    assert len(best.tokens) == 7
    assert not best.finished


def test_a_target_may_end_at_the_greatest_length() -> None:
    model = Toy(6, patience=-50.0)
    [[best]] = generate(model, [[3]], max_length=1)
    assert (best.tokens, best.finished) == ([], True)


def test_n_best_are_different_and_in_order() -> None:
    [found] = generate(Toy(6, 1), [[3, 4]], search=Beam(5, n_best=5))
    assert len({tuple(one.tokens) for one in found}) == 5
    assert [one.score for one in found] == sorted((one.score for one in found), reverse=True)


def test_there_may_be_fewer_than_n_best() -> None:
    [found] = generate(Toy(4), [[3]], search=Beam(9, n_best=9), max_length=1)
    assert len(found) == 4  # the tokens


def test_finished_sentences_leave() -> None:
    model = Toy(6, 2)
    generate(model, SOURCES, search=Beam(3), max_length=lambda length: 2 + 2 * length)
    sizes = model.states[-1].sizes
    assert len(sizes) > 2
    assert sizes == sorted(set(sizes), reverse=True)
    assert model.steps[-1][0] == sizes[-1]
    assert {hypotheses for _, hypotheses in model.steps[1:]} == {3}


def test_equal_parents_are_not_copied() -> None:
    model = Toy(6, 3)
    generate(model, [[3, 4]], search=Beam(1), max_length=9)
    assert len(model.steps) > 1
    assert model.states[-1].reordered == 0


def unconstrained(size: int, sentences: int) -> ConstraintState:
    """The state of no constraints, for a vocabulary of this size."""
    prompts, limits = torch.ones(sentences, 1, dtype=torch.int64), torch.full((sentences,), 9)
    return ConstraintState(Constraints(), Vocabulary(size=size), prompts, limits)


def test_continuations_of_a_small_vocabulary_are_filled_up() -> None:
    scores = torch.tensor([[0.0], [-1.0]])
    totals, parents, tokens = continuations(torch.zeros(2, 1, 3), scores, 5, unconstrained(3, 2))
    assert totals[:, :3].allclose(scores - torch.tensor(3.0).log())
    assert (totals[:, 3:] == -torch.inf).all()
    assert sorted(tokens[0, :3].tolist()) == [0, 1, 2]
    assert parents.tolist() == [[0] * 5] * 2


def test_continuations_are_the_best_of_all_hypotheses() -> None:
    generator = torch.Generator().manual_seed(0)
    logits, scores = torch.randn(3, 5, 4111, generator=generator), torch.randn(3, 5, generator=generator)
    totals, parents, tokens = continuations(logits, scores, 10, unconstrained(4111, len(logits)))
    every = logits.log_softmax(2) + scores[:, :, None]
    assert totals.allclose(every.flatten(1).topk(10).values, atol=1e-6)
    assert totals.allclose(torch.stack([x[p, t] for x, p, t in zip(every, parents, tokens, strict=True)]), atol=1e-6)
