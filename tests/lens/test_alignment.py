"""Weights between words, and what is read off them, against numbers worked out by hand."""

import dataclasses

import pytest
import torch

from regard.lens.alignment import END, START, Alignment, joined, merged
from tests.lens.models import alignment


def test_a_word_gets_what_its_pieces_get_and_gives_their_mean() -> None:
    weights = torch.tensor([[0.1, 0.2, 0.7], [0.3, 0.5, 0.2]])
    found = merged(weights, [range(2)], [range(2), range(2, 3)])
    assert torch.allclose(found, torch.tensor([[0.55, 0.45]]))
    assert merged(torch.rand(2, 3, 5, 7), [range(5)], [range(3), range(3, 7)]).shape == (2, 3, 1, 2)


def known() -> Alignment:
    first = torch.tensor([[[0.8, 0.1, 0.1], [0.0, 0.4, 0.6]], [[0.6, 0.3, 0.1], [0.2, 0.6, 0.2]]])
    second = torch.tensor([[[0.1, 0.9, 0.0], [0.1, 0.8, 0.1]], [[0.1, 0.9, 0.0], [0.3, 0.3, 0.4]]])
    return Alignment(
        source=["a", "b", END],
        target=["x", END],
        weights={"decoder.0.cross_attention": first, "decoder.1.cross_attention": second},
    )


def test_maps_are_of_a_head_or_the_mean_of_heads_and_layers() -> None:
    seen = known()
    assert torch.allclose(seen.map(layer=1, head=2).weights[0], torch.tensor([0.6, 0.3, 0.1]))
    assert torch.allclose(seen.map(layer=1).weights[0], torch.tensor([0.7, 0.2, 0.1]))
    assert torch.allclose(seen.map(head=1).weights[0], torch.tensor([0.45, 0.5, 0.05]))
    assert torch.allclose(seen.map().weights[0], torch.tensor([0.4, 0.55, 0.05]))
    assert seen.map().title == "Attention of target to source, mean of 2 layers, mean of 2 heads"
    assert seen.map(layer=2, head=1).title == "Attention of target to source, layer 2, head 1"


def test_axes_say_which_words_attend_to_which() -> None:
    seen = alignment("a b", "x y z")
    assert seen.kinds == ["cross", "encoder", "decoder"]
    cross, encoder, decoder = (seen.map(kind) for kind in seen.kinds)
    assert (cross.row_axis, cross.column_axis) == ("target", "source")
    assert (cross.rows, cross.columns) == (["x", "y", "z", END], ["a", "b", END])
    assert (encoder.row_axis, encoder.rows, encoder.columns) == ("source", ["a", "b", END], ["a", "b", END])
    assert (decoder.column_axis, decoder.rows) == ("target", ["x", "y", "z", END])
    assert decoder.columns == [START, "x", "y", "z"]  # what can be read when a word is written


def test_pharaoh_names_the_source_first_and_leaves_end_marks_out() -> None:
    weights = torch.tensor([[[0.1, 0.7, 0.2], [0.5, 0.3, 0.2], [0.1, 0.2, 0.7], [0.2, 0.3, 0.5]]])
    seen = Alignment(source=["a", "b", END], target=["x", "y", "z", END], weights={"cross_attention": weights})
    assert seen.pharaoh() == "1-0 0-1 1-2"
    assert known().pharaoh() == "1-0"


def test_pharaoh_counts_the_words_that_count() -> None:
    weights = torch.tensor([[[0.9, 0.0, 0.1, 0.0], [0.5, 0.3, 0.1, 0.1], [0.7, 0.0, 0.0, 0.3], [0.0, 0.0, 0.0, 1.0]]])
    seen = Alignment(
        source=["to:", "a", "b", END],
        target=["x", "y", "z", END],
        weights={"cross_attention": weights},
        source_numbers=[None, 4, 6, None],
        target_numbers=[2, 3, 4, None],
    )
    assert seen.pharaoh() == "6-2 4-3"  # z gives its weight to what does not count


def test_alignments_of_pieces_are_one() -> None:
    first, second = alignment("a b", "x y z"), alignment("c", "v w")
    numbered = [
        dataclasses.replace(first, source_numbers=[0, 1, None], target_numbers=[0, 1, 2, None]),
        dataclasses.replace(second, source_numbers=[2, None], target_numbers=[3, 4, None], finished=False),
    ]
    whole = joined(numbered)
    assert whole.source == ["a", "b", END, "c", END]
    assert whole.words("decoder") == (["x", "y", "z", END, "v", "w", END], [START, "x", "y", "z", START, "v", "w"])
    assert whole.pharaoh() == f"{numbered[0].pharaoh()} {numbered[1].pharaoh()}"
    assert not whole.finished
    for path, weights in whole.weights.items():
        rows, columns = first.weights[path].shape[1:]
        assert torch.equal(weights[:, :rows, :columns], first.weights[path])
        assert torch.equal(weights[:, rows:, columns:], second.weights[path])
        assert torch.allclose(weights.sum(-1), torch.ones(weights.shape[:2]))
    assert joined(numbered[:1]) is numbered[0]


@pytest.mark.parametrize(("source", "target"), [("", "x"), ("a", ""), ("", "")])
def test_pharaoh_of_no_words_is_empty(source: str, target: str) -> None:
    assert alignment(source, target).pharaoh() == ""
