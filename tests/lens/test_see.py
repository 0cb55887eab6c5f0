"""What a model attends to while it writes a given target."""

import pytest
import torch

from regard.lens.alignment import END, START
from regard.lens.record import record
from regard.lens.see import look
from tests.lens.models import PATHS, SOURCE, TARGET, model, tokenizer


@pytest.mark.parametrize("name", PATHS)
def test_weights_between_words(name: str) -> None:
    module, target = model(name).train(), tokenizer().encode(TARGET)
    seen = look(module, tokenizer(), SOURCE, target)
    assert module.training
    assert seen.source == [*SOURCE.split(), END]
    assert seen.target == [*TARGET.split(), END]
    assert list(seen.weights) == PATHS[name]
    for weights in seen.weights.values():
        assert torch.allclose(weights.sum(-1), torch.ones(weights.shape[:2]), atol=1e-5)
    assert len(seen.pharaoh().split()) == len(TARGET.split())


@pytest.mark.parametrize("kind", ["cross", "decoder"])
def test_pieces_are_merged_where_they_stand(kind: str) -> None:
    module, ids = model("transformer"), tokenizer().encode("contenuto la")
    (_, first), _ = tokenizer().words(ids)
    assert len(first) > 1  # or nothing is merged
    seen = look(module, tokenizer(), "container", ids)
    path = f"decoder.1.{'cross' if kind == 'cross' else 'self'}_attention"
    with torch.no_grad(), record(module, weights=True) as pieces:
        module(torch.tensor([[*tokenizer().encode("container"), 2]]), None, torch.tensor([[1, *ids]]))
    expected = pieces[path].weights[0, :, first.start : first.stop].mean(1)
    if kind == "cross":
        assert torch.allclose(seen.weights[path][:, 0, 0], expected[:, :-1].sum(-1))
    else:
        assert seen.words(kind)[1] == [START, "contenuto", "la"]
        assert torch.allclose(seen.weights[path][:, 0, 0], expected[:, 0])
        assert torch.allclose(seen.weights[path][:, 0, 1], expected[:, 1 : len(first) + 1].sum(-1))
        assert bool((seen.weights[path][:, 0, 2] == 0).all())  # not written yet


@pytest.mark.parametrize(("source", "target"), [("", ""), ("contains", ""), ("", "contiene")])
def test_empty_sentences_have_an_end_mark_to_look_at(source: str, target: str) -> None:
    seen = look(model("transformer"), tokenizer(), source, tokenizer().encode(target))
    assert seen.source == [*source.split(), END]
    assert seen.map("decoder").weights.shape == (len(target.split()) + 1,) * 2


def test_parts_of_a_target_may_be_given() -> None:
    module, ids = model("transformer"), tokenizer().encode("contenuto la")
    parts = [("first", range(1)), ("others", range(1, len(ids)))]
    seen = look(module, tokenizer(), "container", ids, target_words=parts)
    assert seen.target == ["first", "others", END]
    whole = look(module, tokenizer(), "container", ids)
    path = "decoder.1.cross_attention"
    assert torch.allclose(seen.weights[path][:, -1], whole.weights[path][:, -1])
