"""Every learnable input by finite differences in float64: first and second derivatives, backward and forward mode.

The tiled computation is cut into tiles of a few numbers, so that each case crosses tiles; the patterns leave rows
empty, so that "gradients 0, never NaN" is part of each check.
"""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import pytest
import torch
from torch import Tensor
from torch.autograd import gradcheck, gradgradcheck

import regard as rg
from regard.attention.engine import tiling

B, H, G, L, S, E, V = 2, 2, 1, 3, 5, 2, 2
BACKENDS = ["reference", "chunked"]
HIDE = rg.Mask(
    torch.tensor([[0, 1, 1, 0, 1], [0, 0, 0, 0, 0], [1, 1, 0, 0, 1]], dtype=torch.bool)
)  # row 1 sees nothing
# fast_mode: along random directions of all inputs and outputs at once
AGAINST = {"atol": 1e-6, "rtol": 1e-4, "fast_mode": True}


@pytest.fixture(autouse=True)
def few_numbers_to_a_tile(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tiling, "TILE", B * H * 6)  # tiles of 3 rows by 2 columns, or strips of one row


def numbers(seed: int, *shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


QUERY, KEY, VALUE = numbers(1, B, H, L, E), numbers(2, B, G, S, E), numbers(3, B, G, S, V)


class Case(NamedTuple):
    """What is learned besides query, key and value, and the arguments made of it."""

    learned: tuple[Tensor, ...]
    arguments: Callable[..., dict[str, object]]


CENTER = numbers(4, B, H, L) + 2

CASES = {
    "dot": Case((), dict),
    "dot-scale": Case((numbers(5, H),), lambda scale: {"score": rg.Dot(scale=scale)}),
    "dot-softcap": Case((numbers(5),), lambda scale: {"score": rg.Dot(scale=scale, softcap=1.5)}),
    "cosine": Case((numbers(5, H),), lambda scale: {"score": rg.Cosine(scale)}),
    "bilinear": Case((numbers(5, H, E, E),), lambda w: {"score": rg.Bilinear(w)}),
    "bilinear-shared": Case((numbers(5, E, E),), lambda w: {"score": rg.Bilinear(w), "normalizer": rg.Sparsemax()}),
    "additive": Case((numbers(5, E),), lambda v: {"score": rg.Additive(v)}),
    "additive-sigmoid": Case((numbers(5, H, E),), lambda v: {"score": rg.Additive(v, activation="sigmoid")}),
    "location-aware": Case(
        (numbers(5, B, H, 1, S), numbers(6, H, 2, 3), numbers(7, 2, E), numbers(8, E)),
        lambda previous, f, u, v: {
            "score": rg.LocationAware.from_previous(previous, filters=f, projection=u, vector=v)
        },
    ),
    "location-aware-by-query": Case(
        (numbers(5, L, S), numbers(6, 2, 5), numbers(7, H, 2, E), numbers(8, H, E)),
        lambda previous, f, u, v: {
            "score": rg.LocationAware.from_previous(previous, filters=f, projection=u, vector=v)
        },
    ),
    "location": Case((numbers(5, H, S, E),), lambda w: {"score": rg.Location(w)}),
    "location-start": Case((numbers(5, S + 2, E),), lambda w: {"score": rg.Location(w), "key_start": 1}),
    "bias-full": Case((numbers(5, B, H, L, S),), lambda x: {"bias": x}),
    "bias-row": Case((numbers(5, S),), lambda x: {"bias": rg.TensorBias(x), "normalizer": rg.Entmax(1.5)}),
    "bias-column": Case((numbers(5, H, L, 1),), lambda x: {"bias": x, "normalizer": rg.Sigmoid()}),
    "alibi": Case((numbers(5, H),), lambda x: {"bias": rg.ALiBi(x)}),
    "alibi-one": Case((numbers(5),), lambda x: {"bias": rg.ALiBi(x), "normalizer": rg.Sparsemax()}),
    "relative": Case((numbers(5, 8, H),), lambda x: {"bias": rg.RelativeBias(x, max_distance=5)}),
    "relative-causal": Case((numbers(5, 4, H),), lambda x: {"bias": rg.RelativeBias(x, False, 5)}),
    "sink": Case((numbers(5, H),), lambda x: {"normalizer": rg.Softmax(sink=x)}),
    "sink-one": Case((numbers(5),), lambda x: {"normalizer": rg.Softmax(sink=x), "bias": numbers(6, L, S)}),
    "prior": Case(
        (CENTER, numbers(6, H).exp()),
        lambda center, sigma: {"normalizer": rg.Softmax(prior=rg.Gaussian(center, sigma))},
    ),
    "prior-sink": Case(
        (CENTER[0, 0], numbers(6).exp(), numbers(7, H)),
        lambda center, sigma, sink: {"normalizer": rg.Softmax(sink, rg.Gaussian(center, sigma))},
    ),
    "sparsemax": Case((), lambda: {"normalizer": rg.Sparsemax()}),
    "entmax": Case((torch.tensor([1.3, 2.4]).double(),), lambda alpha: {"normalizer": rg.Entmax(alpha)}),
    "entmax-one": Case((torch.tensor(1.7).double(),), lambda alpha: {"normalizer": rg.Entmax(alpha)}),
    "sigmoid": Case((numbers(5, H),), lambda x: {"normalizer": rg.Sigmoid(x)}),
    "normalized-sigmoid": Case((numbers(5, H),), lambda x: {"normalizer": rg.NormalizedSigmoid(x)}),
    "dropout": Case((), lambda: {"dropout": 0.4, "seed": 9}),
    "dropout-entmax": Case((), lambda: {"dropout": 0.4, "seed": 9, "normalizer": rg.Entmax(1.5)}),
    "dropout-sigmoid": Case((), lambda: {"dropout": 0.4, "seed": 9, "normalizer": rg.Sigmoid()}),
    "dropout-prior": Case(
        (CENTER, numbers(7, H)),
        lambda center, sink: {"dropout": 0.4, "seed": 9, "normalizer": rg.Softmax(sink, rg.Gaussian(center, 1.5))},
    ),
    "causal": Case((), lambda: {"pattern": rg.Causal(), "query_start": -1}),
    "ragged": Case(
        (), lambda: {"pattern": rg.Causal() & rg.SlidingWindow(left=1), "query_start": torch.tensor([-2, 1])}
    ),
    "around": Case(
        (CENTER,),
        lambda center: {
            "pattern": rg.Around(center, left=1, right=1),
            "normalizer": rg.Softmax(prior=rg.Gaussian(center, 0.5)),
        },
    ),
}


def inputs(case: Case) -> tuple[Tensor, ...]:
    return tuple(x.clone().requires_grad_() for x in (QUERY, KEY, VALUE, *case.learned))


def output(case: Case, backend: str, query: Tensor, key: Tensor, value: Tensor, *learned: Tensor, **more) -> Tensor:
    return rg.attend(query, key, value, **{"pattern": HIDE, **case.arguments(*learned), **more}, backend=backend)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("name", CASES)
def test_backward(name: str, backend: str) -> None:
    assert gradcheck(partial(output, CASES[name], backend), inputs(CASES[name]), **AGAINST)


SMOOTH = [
    "dot",
    "dot-softcap",
    "additive",
    "sink",
    "prior",
    "prior-sink",
    "bias-full",
    "relative",
    "sigmoid",
    "normalized-sigmoid",
    "location-aware",
    "dropout",
]
THRESHOLDS = ["sparsemax", "entmax", "entmax-one"]


@pytest.mark.parametrize("name", [*SMOOTH, *THRESHOLDS, "causal", "ragged"])
def test_backward_twice(name: str) -> None:
    assert gradgradcheck(partial(output, CASES[name], "chunked"), inputs(CASES[name]), **AGAINST)


@pytest.mark.parametrize("name", CASES)
def test_forward_mode(name: str) -> None:
    function = partial(output, CASES[name], "chunked")
    assert gradcheck(function, inputs(CASES[name]), check_forward_ad=True, check_backward_ad=False, **AGAINST)


@pytest.mark.parametrize(
    "name", ["dot", "sink", "prior", "entmax", "sparsemax", "sigmoid", "normalized-sigmoid", "additive"]
)
def test_third_derivatives_agree(name: str) -> None:
    """Nothing stops at the second: the tiled computation against the dense one."""
    found = []
    for backend in BACKENDS:
        given = inputs(CASES[name])
        total = output(CASES[name], backend, *given).pow(2).sum()
        for _ in range(2):
            parts = torch.autograd.grad(total, given, create_graph=True)
            total = sum(part.pow(2).sum() for part in parts)
        found.append(torch.autograd.grad(total, given))
    for dense, tiled in zip(*found, strict=True):
        torch.testing.assert_close(tiled, dense, rtol=1e-8, atol=1e-8)


SUMMARIES = {
    "log_sum_exp": ["dot", "sink", "bias-full", "prior-sink"],
    "entropy": ["dot", "sink", "alibi", "normalized-sigmoid", "sparsemax", "entmax"],
    "key_mass": ["dot", "sink", "prior", "entmax", "sigmoid"],
    "expected_key": ["dot", "sink", "prior", "entmax", "sigmoid"],
    "grid": ["dot", "entmax"],
    "weights": ["dot", "prior-sink", "entmax", "sigmoid"],
}
SUMMARY_CASES = [(summary, name) for summary, names in SUMMARIES.items() for name in names]


def summary_of(
    summary: str, case: Case, backend: str, query: Tensor, key: Tensor, value: Tensor, *learned: Tensor
) -> Tensor:
    asked = rg.Summary(**{summary: (2, 2) if summary == "grid" else True})
    arguments = {"pattern": HIDE, **case.arguments(*learned), "summary": asked, "backend": backend}
    found = getattr(rg.attend(query, key, value, **arguments)[1], summary)
    return torch.where(found.isinf(), 0.0, found)  # the log-sum-exp of a row that sees nothing


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize(("summary", "name"), SUMMARY_CASES)
def test_summary_backward(summary: str, name: str, backend: str) -> None:
    assert gradcheck(partial(summary_of, summary, CASES[name], backend), inputs(CASES[name]), **AGAINST)


@pytest.mark.parametrize(("summary", "name"), SUMMARY_CASES)
def test_summary_backward_twice(summary: str, name: str) -> None:
    function = partial(summary_of, summary, CASES[name], "chunked")
    assert gradgradcheck(function, inputs(CASES[name]), **AGAINST)


@pytest.mark.parametrize("backend", BACKENDS)
def test_output_and_summaries_together(backend: str) -> None:
    def function(*given: Tensor) -> tuple[Tensor, ...]:
        asked = rg.Summary(log_sum_exp=True, entropy=True, expected_key=True, key_mass=True)
        mixed, found = rg.attend(*given, pattern=HIDE, summary=asked, backend=backend)
        row = torch.where(found.log_sum_exp.isinf(), 0.0, found.log_sum_exp)
        return mixed, row, found.entropy, found.expected_key, found.key_mass

    assert gradcheck(function, inputs(CASES["dot"]), **AGAINST)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("name", ["dot", "entmax-one", "sigmoid", "sparsemax", "sink"])
def test_rows_that_see_nothing_take_no_gradient(name: str, backend: str) -> None:
    given = inputs(CASES[name])
    result = output(CASES[name], backend, *given)
    assert not bool(result[:, :, 1].any())
    incoming = torch.ones_like(result)
    incoming[:, :, 1] = float("nan")
    grads = torch.autograd.grad(result, given, incoming, allow_unused=True)
    assert all(g is None or bool(g.isfinite().all()) for g in grads)
    assert not bool(grads[0][:, :, 1].any())


@pytest.mark.parametrize("name", ["dot", "prior", "sigmoid", "sparsemax", "sink"])
def test_function_transforms(name: str) -> None:
    # By a pattern of positions: inside a transform PyTorch does not let the data of a mask be read.
    case, causal = CASES[name], {"pattern": rg.Causal(), "query_start": -1}
    given = (QUERY, KEY, VALUE, *case.learned)
    tangents = tuple(numbers(20 + i, *x.shape) for i, x in enumerate(given))
    _, forward = torch.func.jvp(partial(output, case, "chunked", **causal), given, tangents)
    _, expected = torch.func.jvp(partial(output, case, "reference", **causal), given, tangents)
    torch.testing.assert_close(forward, expected, rtol=1e-9, atol=1e-9)

    def total(query: Tensor, backend: str) -> Tensor:
        return output(case, backend, query, *given[1:], **causal).pow(2).sum()

    grads = [torch.func.grad(total)(QUERY, backend) for backend in BACKENDS]
    torch.testing.assert_close(*grads, rtol=1e-9, atol=1e-9)


def test_deterministic_gradients_of_a_table() -> None:
    table = numbers(5, 32, 4).float().requires_grad_()
    query = numbers(1, 1, 4, 50, 8).float()
    bias = rg.RelativeBias(table)
    runs = [
        torch.autograd.grad(rg.attend(query, query, query, bias=bias, backend="chunked").sum(), table) for _ in range(3)
    ]
    assert all(torch.equal(first[0], runs[0][0]) for first in runs)
