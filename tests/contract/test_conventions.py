"""Rows of the design's table of conventions that are about one backend at a time."""

import pytest
import torch

import regard as rg
from regard.attention.engine import tiling
from tests.contract import cases
from tests.contract.bounds import error
from tests.contract.cases import DTYPES, NORMALIZERS, Case, Problem

TILED = [("reference", 0), ("chunked", 0), ("chunked", 50)]


@pytest.mark.parametrize(("backend", "tile"), [*TILED, ("sdpa", 0)])
@pytest.mark.parametrize("normalizer", NORMALIZERS)
def test_a_row_that_sees_nothing(backend: str, tile: int, normalizer: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if backend == "sdpa" and normalizer != "softmax":
        pytest.skip("sdpa: normalizer: computes Softmax only, tested in test_contract.py")
    if tile:
        monkeypatch.setattr(tiling, "TILE", tile)
    problem = Problem.of(Case(backend, "dot", normalizer, "causal", edge="more_queries"))
    blind = problem.edge.L - problem.edge.S  # so many queries stand before the first key
    leaves = problem.leaves(torch.float64)
    arguments = problem.arguments(leaves)
    summary = rg.Summary(
        log_sum_exp=normalizer.startswith("softmax"),
        entropy=not normalizer.startswith(("sigmoid", "hard")) and "prior" not in normalizer,
        expected_key=True, top_k=2, weights=True,
    )  # fmt: skip
    if backend == "sdpa":
        output, result = rg.attend(**arguments, backend=backend), rg.SummaryResult()
    else:
        output, result = rg.attend(**arguments, summary=summary, backend=backend)
    assert not output[:, :, :blind].any()
    assert output[:, :, blind:].any(-1).all()
    for name, x in vars(result).items():
        if x is None:
            continue
        if name == "log_sum_exp":
            expected = leaves.get("sink", torch.tensor(-torch.inf, dtype=torch.float64)).reshape(-1, 1)
            assert torch.equal(x[:, :, :blind], expected.expand_as(x[:, :, :blind]))
        else:
            assert bool((x[:, :, :blind] == (-1 if name == "top_keys" else 0)).all()), name
    (grad,) = torch.autograd.grad(output, leaves["query"], torch.ones_like(output), materialize_grads=True)
    assert not grad[:, :, :blind].any()
    assert grad[:, :, -1].any() == (normalizer not in ("hard", "hard_reinforce"))  # no gradient through a choice


@pytest.mark.parametrize(("backend", "tile"), [*TILED, ("sdpa", 0)])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("pattern", ["full", "causal", "nested"])
@torch.no_grad()
def test_one_sequence_in_any_batch(backend: str, tile: int, dtype: str, pattern: str, monkeypatch) -> None:
    if tile:
        monkeypatch.setattr(tiling, "TILE", tile)
    monkeypatch.setitem(cases.EDGES, "batch", cases.Edge(B=5, L=11, S=17))
    problem = Problem.of(Case(backend, "dot", "softmax", pattern, "tensor_per_head", dtype, "batch"))
    arguments = problem.arguments(problem.leaves(DTYPES[dtype]))
    together = rg.attend(**arguments, backend=backend)
    bound = 4 * torch.finfo(DTYPES[dtype]).eps * 17**0.5 * float(problem.tensors["value"].abs().max())
    for b in range(5):
        one = dict(arguments) | {name: arguments[name][b : b + 1] for name in ("query", "key", "value")}
        if pattern == "nested":  # holds tensors with a batch dimension: only its visibility is cut
            at = rg.plan(**arguments).call.positions()
            one["pattern"] = rg.Mask(arguments["pattern"].visible(*at)[b : b + 1])
        assert error(rg.attend(**one, backend=backend), together[b : b + 1]) <= bound
