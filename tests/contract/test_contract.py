"""Every backend gives what the reference gives in float64, forward and backward, within the error it may have."""

import re

import pytest

import regard as rg
from regard.attention.engine import tiling
from regard.errors import UnsupportedError
from tests.contract import cases
from tests.contract.bounds import error, expect, make_problem, outcome, poison
from tests.contract.cases import DTYPES, Case, Problem

# Every reason for which a backend may refuse a case of the matrix, without the value that it names.
REASONS = {
    "sdpa: score: computes Dot only",
    "sdpa: score: does not support a softcap",
    "sdpa: score: supports a number as scale, not a tensor",
    "sdpa: normalizer: computes Softmax only",
    "sdpa: normalizer: does not support a sink",
    "sdpa: normalizer: does not support a prior",
    "native: score: computes location features that all queries share only",
    "native: normalizer: computes Softmax, Sigmoid, Entmax, Sparsemax, Hard only",
    "native: normalizer: computes samples of one key only",
    "sdpa: dropout: cannot drop the entries defined by the seed",
}


def reasons(case: Case) -> list[str]:
    """Why the backend refuses the case."""
    problem = Problem.of(case)
    refusals = rg.plan(**problem.arguments(problem.leaves(DTYPES[case.dtype]))).refusals
    return [f"{case.backend}: {re.sub(', not [A-Z].*', '', reason)}" for reason in refusals.get(case.backend, ())]


def test_case(case: Case, monkeypatch: pytest.MonkeyPatch, record_property) -> None:
    if why := reasons(case):
        for reason in why:
            record_property("refused", reason)
        assert set(why) <= REASONS
        problem = Problem.of(case)
        with pytest.raises(UnsupportedError, match=re.escape(why[0].split(": ", 1)[1])):
            rg.attend(**problem.arguments(problem.leaves(DTYPES[case.dtype])), backend=case.backend)
        return
    record_property("ran", case.backend)
    if case.tile:
        monkeypatch.setattr(tiling, "TILE", case.tile_size)

    problem, visible = make_problem(case)
    expected = expect(problem, visible)
    leaves = problem.leaves(DTYPES[case.dtype])
    if problem.edge.poison:
        poison(problem, visible, leaves)
    assert rg.plan(**problem.arguments(leaves), backend=case.backend).backend == case.backend
    found = outcome(problem, lambda **arguments: rg.attend(**arguments, backend=case.backend), leaves)

    assert found.output.dtype == DTYPES[case.dtype]
    off = {"output": (error(found.output, expected.truth.output), expected.output)}
    for name, grad in found.gradients.items():
        assert grad.dtype == leaves[name].dtype
        off[name] = (error(grad, expected.truth.gradients[name]), expected.gradients[name])
    too_far = {
        name: f"error {got:.3g}, allowed {allowed:.3g}" for name, (got, allowed) in off.items() if not got <= allowed
    }
    assert not too_far


def test_every_reason_to_refuse_occurs() -> None:
    refused = [case for case in cases.sample() if cases.refused(case)]
    assert {reason for case in refused for reason in reasons(case)} == REASONS


def test_the_product_holds_every_tuple_and_the_sample_every_pair() -> None:
    whole, few = cases.full(), cases.sample()
    cores = {(c.backend, c.score, c.normalizer, c.pattern) for c in whole}
    assert len(cores) == len(cases.BACKENDS) * len(cases.SCORES) * len(cases.NORMALIZERS) * len(cases.PATTERNS)
    for backend in ("reference", "chunked"):
        pairs = {pair for c in few if c.backend == backend for pair in c.pairs()}
        axes = [cases.SCORES, cases.NORMALIZERS, cases.PATTERNS, cases.BIASES, cases.DTYPES, cases.EDGES]
        names = ["score", "normalizer", "pattern", "bias", "dtype", "edge"]
        wanted = {
            ((names[i], x), (names[j], y))
            for i in range(len(axes))
            for j in range(i + 1, len(axes))
            for x in axes[i]
            for y in axes[j]
        }
        assert not wanted - pairs


def test_small_tiles_cut_small_cases(monkeypatch: pytest.MonkeyPatch) -> None:
    counts = []
    for case in cases.sample():
        if case.tile:
            monkeypatch.setattr(tiling, "TILE", case.tile_size)
            problem = Problem.of(case)
            call = rg.plan(**problem.arguments(problem.leaves(DTYPES[case.dtype])), backend="chunked").call
            counts.append(sum(len(block.tiles) for block in tiling.cut(call)))
    assert sum(count > 1 for count in counts) > 0.8 * len(counts)
    assert sum(count > 5 for count in counts) > 0.4 * len(counts)
