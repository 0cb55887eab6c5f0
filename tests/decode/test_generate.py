"""`generate`: batches, order, evaluation mode and progress; and greedy search."""

import pytest
import torch
from torch import nn

from regard.decode.generate import generate, twice_as_long
from regard.decode.search import Beam, Greedy, Sample, Search
from regard.models.seq2seq import Vocabulary
from regard.models.transformer import Transformer, TransformerConfig
from tests.decode.toy import Toy, greedy, same, total

GENERATOR = torch.Generator().manual_seed(0)
LENGTHS = torch.randint(0, 9, (64,), generator=GENERATOR).tolist()
SOURCES = [torch.randint(3, 11, (length,), generator=GENERATOR).tolist() for length in LENGTHS]


def transformer() -> Transformer:
    torch.manual_seed(0)
    sizes = {"embed_dim": 16, "num_heads": 2, "ffn_dim": 32, "encoder_layers": 1, "decoder_layers": 1}
    model = Transformer(TransformerConfig(vocabulary=Vocabulary(size=11), **sizes))
    for parameter in model.parameters():
        if parameter.dim() == 2:  # so that targets depend on their sources
            nn.init.normal_(parameter, std=0.6)
    return model


@pytest.mark.parametrize("search", [Greedy(), Beam(3, n_best=2), Beam(4, length_penalty=0.0)], ids=str)
@pytest.mark.parametrize("model", [Toy(11, 1, patience=2.0), transformer()], ids=["toy", "transformer"])
def test_a_sentence_is_the_same_alone_in_a_batch_and_padded(model: Toy | Transformer, search: Search) -> None:
    together = generate(model, SOURCES, search=search, batch_size=64, max_length=12)
    assert len({tuple(found[0].tokens) for found in together}) > 10
    by_nine = generate(model, SOURCES, search=search, batch_size=9, max_length=12)
    assert all(same(one, two) for one, two in zip(by_nine, together, strict=True))
    for source, found in list(zip(SOURCES, together, strict=True))[:12]:
        assert same(generate(model, [source], search=search, max_length=12)[0], found)


def test_greedy_chooses_the_most_probable() -> None:
    model = Toy(11, 1, patience=2.0)
    for source, [one] in zip(SOURCES[:20], generate(model, SOURCES[:20], search=Greedy()), strict=True):
        limit = twice_as_long(len(source))
        assert one.tokens == greedy(model, source, limit)
        assert one.finished == (len(one.tokens) < limit)
        tokens = [*one.tokens, model.vocabulary.eos] if one.finished else one.tokens
        assert one.score == pytest.approx(total(model, source, tokens) / len(tokens), abs=1e-4)


def test_finished_sentences_leave() -> None:
    model = Toy(11, 1)
    found = generate(model, SOURCES, search=Greedy(), batch_size=64)
    assert len(model.steps) == max(len(one.tokens) + one.finished for [one] in found)
    assert sum(rows for rows, _ in model.steps) == sum(len(one.tokens) + one.finished for [one] in found)


def test_each_source_has_its_own_greatest_length() -> None:
    model = Toy(11, patience=99.0)
    for search in (Greedy(), Beam(2), Sample()):
        found = generate(model, SOURCES, search=search, max_length=lambda length: 1 + length // 2)
        assert [len(one.tokens) for [one] in found] == [1 + length // 2 for length in LENGTHS]
        assert not any(one.finished for [one] in found)
    [[one]] = generate(model, [[3, 4, 5]])
    assert len(one.tokens) == 2 * 3 + 16


def test_no_sources() -> None:
    assert generate(Toy(), []) == []


def test_batches_have_similar_lengths_and_progress_is_reported() -> None:
    model, calls = Toy(11, 1), []
    generate(model, SOURCES, search=Greedy(), batch_size=30, progress=lambda *counts: calls.append(counts))
    assert calls == [(30, 64), (60, 64), (64, 64)]
    assert [state.sizes[0] for state in model.states] == [30, 30, 4]


def test_the_mode_comes_back() -> None:
    model = Toy()
    model.part = nn.Dropout()
    model.train()
    model.part.eval()
    generate(model, [[3]], search=Greedy())
    assert model.training
    assert not model.part.training
    with pytest.raises(ZeroDivisionError):
        generate(model, [[3]], search=Greedy(), progress=lambda *_: 1 / 0)
    assert model.training


def test_results_are_plain_values() -> None:
    for search in (Greedy(), Beam(2), Sample()):
        [[one]] = generate(Toy(), [[3, 4]], search=search)
        assert [type(x) for x in one] == [list, float, bool]
        assert {type(token) for token in one.tokens} <= {int}


def test_sources_are_ended_and_padded() -> None:
    model = Toy(9)
    model.vocabulary = Vocabulary(size=9, pad=8, bos=1, eos=2)
    inputs, lengths = model.collate([[3, 4], [], [5]])
    assert inputs.tolist() == [[3, 4, 2], [2, 8, 8], [5, 2, 8]]
    assert lengths.tolist() == [3, 1, 2]
