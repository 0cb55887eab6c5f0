"""Values: equal and hashed by their fields, or by identity if they hold a tensor; frozen, printable, cut to tiles."""

import dataclasses
from typing import Any

import pytest
import torch

import regard as rg
from regard.attention.value import Value, axis, per_head, rebuild, slice_value

EQUAL: list[tuple[Value, Value]] = [
    (rg.Dot(), rg.Dot()),
    (rg.Dot(scale=2.0), rg.Dot(2.0)),
    (rg.Entmax(1.5), rg.Entmax(alpha=1.5)),
    (rg.GlobalTokens([2, 1]), rg.GlobalTokens(iter([1, 2, 1]))),
    (rg.Causal() & ~rg.SlidingWindow(left=3), rg.Causal() & ~rg.SlidingWindow(left=3)),
    (rg.AttentionSpec(pattern=rg.Causal()), rg.AttentionSpec(pattern=rg.Causal())),
    (rg.Summary(top_k=3), rg.Summary(top_k=3)),
]
DIFFERENT: list[tuple[Value, Any]] = [
    (rg.Dot(), rg.Dot(scale=2.0)),
    (rg.Dot(scale=1.0), rg.Dot(scale=torch.ones(4))),
    (rg.Dot(), rg.Dot(scale=torch.ones(4))),
    (rg.Causal(), rg.Full()),
    (rg.Sparsemax(), rg.Entmax(2.0)),
    (rg.Causal() & rg.Strided(2), rg.Causal() | rg.Strided(2)),
    (rg.Causal() & rg.Strided(2), rg.Strided(2) & rg.Causal()),
    (rg.KeyLengths(torch.tensor([3])), rg.KeyLengths(torch.tensor([3]))),
    (rg.Causal() & rg.KeyLengths(torch.tensor([3])), rg.Causal() & rg.KeyLengths(torch.tensor([3]))),
    (rg.Dot(), "Dot()"),
]


@pytest.mark.parametrize(("a", "b"), EQUAL, ids=str)
def test_equal(a: Value, b: Value) -> None:
    assert a == b
    assert hash(a) == hash(b)
    assert str(a) == str(b)


@pytest.mark.parametrize(("a", "b"), DIFFERENT, ids=str)
def test_different(a: Value, b: object) -> None:
    assert a != b
    assert b != a
    assert len({a, b}) == 2


def test_identity() -> None:
    held = rg.Causal() & rg.KeyLengths(torch.tensor([3]))
    same = held
    assert held == same
    assert {held: 1}[same] == 1


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (rg.Dot(), "Dot()"),
        (rg.Dot(softcap=30.0), "Dot(softcap=30.0)"),
        (rg.Dot(scale=torch.ones(4)), "Dot(scale=Tensor(4))"),
        (
            rg.Softmax(prior=rg.Gaussian(torch.ones(2, 5), 1.5)),
            "Softmax(prior=Gaussian(center=Tensor(2, 5), sigma=1.5))",
        ),
        (rg.RelativeBias(torch.ones(32, 4), max_distance=64), "RelativeBias(table=Tensor(32, 4), max_distance=64)"),
        (rg.AttentionSpec(), "AttentionSpec()"),
        (
            rg.AttentionSpec(normalizer=rg.Sparsemax(), bias=rg.ALiBi(torch.ones(2)), dropout=0.1),
            "AttentionSpec(normalizer=Sparsemax(), bias=ALiBi(slopes=Tensor(2)), dropout=0.1)",
        ),
    ],
)
def test_printing_leaves_defaults_out(value: Value, text: str) -> None:
    assert repr(value) == str(value) == text


def test_frozen() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        rg.Dot().scale = 2.0  # type: ignore[misc]


def test_held_tensors_with_their_names() -> None:
    center, sink, lengths = torch.ones(2, 3, 5), torch.ones(3), torch.tensor([4, 2])
    spec = rg.AttentionSpec(
        normalizer=rg.Softmax(sink, rg.Gaussian(center, 2.0)), pattern=rg.Causal() & ~rg.KeyLengths(lengths)
    )
    assert [(field.path, field.axes) for field in spec.tensor_fields] == [
        ("Softmax.sink", "H"),
        ("Gaussian.center", "BHL"),
        ("KeyLengths.lengths", "B"),
    ]
    assert [field.tensor is x for field, x in zip(spec.tensor_fields, (sink, center, lengths), strict=True)] == [
        True
    ] * 3
    again = rebuild(spec, iter([sink + 1, center + 1, lengths + 1]))
    assert str(again) == str(spec)
    assert [field.tensor.flatten()[0] for field in again.tensor_fields] == [2, 2, 5]
    assert rebuild(rg.Causal(), iter([])) == rg.Causal()


def test_restriction_cuts_what_runs_along_rows_and_columns() -> None:
    rows, columns = slice(1, 3), slice(4, 7)
    full = torch.arange(5 * 7).reshape(5, 7).float()
    assert torch.equal(slice_value(rg.TensorBias(full), rows, columns).tensor, full[1:3, 4:7])
    assert slice_value(rg.TensorBias(full[:1]), rows, columns).tensor.shape == (1, 3)  # broadcast along the rows
    assert slice_value(rg.TensorBias(full[0]), rows, columns).tensor.shape == (3,)
    documents = slice_value(rg.Documents(torch.zeros(2, 5).long(), torch.zeros(2, 7).long()), rows, columns)
    assert (documents.query_ids.shape, documents.key_ids.shape) == ((2, 2), (2, 3))
    assert slice_value(rg.Location(torch.zeros(3, 7, 8)), rows, columns).weight.shape == (3, 3, 8)
    lengths = rg.KeyLengths(torch.tensor([1, 2]))
    assert slice_value(lengths, rows, columns).lengths is lengths.lengths


def test_axes_are_counted_from_the_right() -> None:
    x = torch.zeros(2, 3, 5)
    assert [axis(x, "BHLS", letter) for letter in "BHLS"] == [None, -3, -2, -1]
    assert axis(x, "BHL", "S") is None


def test_per_head() -> None:
    assert per_head(2.0, torch.float32) == 2.0
    shaped = per_head(torch.ones(3), torch.float64)
    assert isinstance(shaped, torch.Tensor)
    assert (shaped.shape, shaped.dtype) == ((3, 1, 1), torch.float64)
