"""Sparse normalizers on scores that no random matrix holds: close, equal, one huge, at the edge of having weight.

Weights sum to 1 within an error that is derived: the kernels end their search where the sum is 1 to 8 units of
rounding, in which a power of two moves with the rounding of its exponent; 4 eps sqrt(S) are the contract's share of
sums. In the output S weights are added up once more, and equal ones may all be rounded to the same side, by eps / 2
each. Half types round each weight and the output, by eps / 2 each.

Weights are exact for scores that differ from the given ones by a few units of rounding of their distance to the
largest. With alpha above 2 that may be all of a small weight, whose derivative has no bound. So outputs and gradients
are allowed what such a change of scores does to the truth, and the contract's share of what is summed.
"""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from tests.contract import exact, sparse
from tests.contract.sparse import ALPHAS, BACKENDS, DTYPES, SCORES, Case, Weighed

TRUTH = 4096  # keys up to which the truth is computed
NUDGE = 4  # units of rounding by which scores are changed
DRAWS = 3


def rounding(case: Case) -> float:
    """The contract's share of the sum of a row's weights, and the end of the search."""
    return (8 + 4 * math.sqrt(case.keys)) * torch.finfo(case.wide).eps


def check_sums(case: Case, found: Weighed, value: Tensor) -> None:
    """What must hold whatever the weights are."""
    row, here, eps = case.row(), torch.finfo(DTYPES[case.dtype]).eps, torch.finfo(case.wide).eps
    seen = bool((row > -math.inf).any())
    assert bool(found.output.isfinite().all())
    assert bool(found.of_scores.isfinite().all())
    assert abs(found.sum - seen) <= rounding(case)
    added = case.keys * eps / 2 + (1.5 * here if here > eps else 0)
    assert abs(float(found.output[0]) - seen) <= rounding(case) + added  # the value 1 of each key
    assert bool((found.output.abs() <= value.abs().amax() * (1 + rounding(case) + added)).all())
    assert not bool(found.of_scores[:, row == -math.inf].any())
    # The first feature is a constant: its gradient is g (y - mean of y) = 0, off by the mean's rounding where g <= 1.
    # With alpha above 2 it is exact, for it is measured from one of the y. Of any feature the gradients sum to 0, for a
    # constant added to all scores changes nothing; the mean's rounding counts g times, S^(alpha - 1) in all or less.
    assert float(found.of_scores[0].abs().max()) <= rounding(case)
    counts = case.keys ** (case.alpha - 1) if case.alpha <= 2 else 0
    parts = found.of_scores.abs().sum(-1)
    assert bool((found.of_scores.sum(-1).abs() <= rounding(case) * (1 + counts + parts)).all())


def test_rows(sparse_case: Case, record_property) -> None:
    case = sparse_case
    record_property("ran", f"{case.backend}, hard rows")
    row, value = case.row(), case.value()
    found = sparse.attend(case, row, value, DTYPES[case.dtype], case.backend)
    check_sums(case, found, value)
    if case.keys > TRUTH:
        return
    truth = sparse.attend(case, row, value, torch.float64, "reference")
    nudged = [sparse.attend(case, nudge(case, row, draw), value, torch.float64, "reference") for draw in range(DRAWS)]
    here, eps = torch.finfo(DTYPES[case.dtype]).eps, torch.finfo(case.wide).eps
    entries, largest = math.sqrt(case.keys), float(value.abs().max())
    limit = 2 * max(off(x.output, truth.output) for x in nudged) + 4 * here * entries * largest + 8 * here
    assert off(found.output, truth.output) <= limit
    moved = max(off(x.of_scores, truth.of_scores) for x in nudged)
    scale = max(1.0, float(truth.of_scores.abs().max()))
    if moved > scale / 10:  # no digit of the gradient is determined
        return
    # w^(2 - alpha), of a weight that is known to some units of rounding, is known to |2 - alpha| times as many.
    limit = 3 * moved + (4 * entries + 8 * abs(case.alpha - 2)) * eps * scale
    assert off(found.of_scores, truth.of_scores) <= limit
    if case.learned:
        # A weight's logarithm over alpha - 1 is what is left of 1 / (alpha - 1)^2.
        scale = (1 + math.log(case.keys)) / (case.alpha - 1) * largest
        limit = 3 * max(off(x.of_alpha, truth.of_alpha) for x in nudged) + 4 * eps * entries * scale
        assert off(found.of_alpha, truth.of_alpha) <= limit


def nudge(case: Case, row: Tensor, draw: int) -> Tensor:
    """Scores off by a few units of rounding of their distance to the largest, or of themselves if that is more."""
    eps = torch.finfo(case.wide).eps
    share = torch.rand(row.shape, generator=torch.Generator().manual_seed(draw), dtype=torch.float64) * 2 - 1
    change = NUDGE * eps / 2 * share * torch.maximum(row.max() - row, row.abs())
    return torch.where(row > -math.inf, row + change, row)


def off(found: Tensor, truth: Tensor) -> float:
    return float((found - truth).abs().max())


@pytest.mark.parametrize("backend", BACKENDS)
@settings(max_examples=25)
@given(
    scores=st.sampled_from(SCORES),
    alpha=st.one_of(st.sampled_from(ALPHAS), st.floats(1.001, 16)),
    keys=st.one_of(st.integers(1, 300), st.sampled_from([1023, 2048])),
    dtype=st.sampled_from(list(DTYPES)),
    learned=st.booleans(),
    seed=st.integers(0, 2**20),
)
def test_any_row(backend: str, scores: str, alpha: float, keys: int, dtype: str, learned: bool, seed: int) -> None:
    case = Case(backend, scores, alpha, keys, dtype, learned, seed)
    value = case.value()
    check_sums(case, sparse.attend(case, case.row(), value, DTYPES[dtype], backend), value)


@pytest.mark.parametrize("alpha", [1.001, 1.2, 1.5, 1.9, 2.0, 2.5, 4.0, 16.0])
@pytest.mark.parametrize("scores", ["within 1e-5", "one below its reach", "ties"])
def test_the_reference_is_exact(scores: str, alpha: float) -> None:
    """In float64, against 40 digits: weights, gradients, alpha's gradient."""
    case = Case("reference", scores, alpha, 5, "float64", learned=True, seed=3)
    row = case.row()
    value = torch.eye(5, dtype=torch.float64)
    found = sparse.attend(case, row, value, torch.float64, "reference")
    weights = exact.weights(row.tolist(), alpha)
    eps = torch.finfo(torch.float64).eps
    assert max(abs(float(w) - x) for w, x in zip(weights, found.output.tolist(), strict=True)) <= 16 * eps
    for feature in (0, 4):
        gradient, of_alpha = exact.gradients(row.tolist(), alpha, value[:, feature].tolist())
        scale = max(1.0, *(abs(float(x)) for x in gradient))
        got = found.of_scores[feature].tolist()
        if alpha > 2:  # a weight is known to eps, w^(2 - alpha) to (alpha - 2) eps / w
            scale *= max(1.0, (alpha - 2) / min(float(w) for w in weights if w > 0))
        assert max(abs(float(x) - y) for x, y in zip(gradient, got, strict=True)) <= 64 * eps * scale
        assert abs(float(of_alpha) - float(found.of_alpha[feature])) <= 64 * eps * max(scale, 1 / (alpha - 1))


def test_near_1_it_is_softmax() -> None:
    """At 1.001 a weight is that of softmax times 1 - (alpha - 1) x^2 / 2 + ..., x its logarithm."""
    case = Case("reference", "normal", 1.001, 64, "float32")
    row = case.row()
    value = torch.eye(64, dtype=torch.float64)
    for backend in BACKENDS:
        found = sparse.attend(case, row, value, torch.float32, backend).output
        assert off(found, row.softmax(-1)) <= 0.001


def test_the_axes_meet() -> None:
    few = sparse.sample()
    for name, entries in (
        ("backend", BACKENDS),
        ("scores", SCORES),
        ("alpha", ALPHAS),
        ("keys", sparse.KEYS),
        ("dtype", DTYPES),
    ):
        assert {getattr(case, name) for case in few} == set(entries)
    assert {case.learned for case in few} == {True, False}
