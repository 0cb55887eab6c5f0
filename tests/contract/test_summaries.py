"""What may be asked for besides the output: each summary by its definition, and its gradients where it has any."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

import regard as rg
from regard.attention.engine import tiling
from tests.contract import plain
from tests.contract.bounds import error, make_problem, poison
from tests.contract.cases import CHOICES, DTYPES, NORMALIZERS, Case, Problem

TOP_K = 4
DIFFERENTIABLE = ("log_sum_exp", "log_prob", "entropy", "expected_key", "key_mass")
Summaries = dict[str, Tensor]


def wanted(problem: Problem) -> rg.Summary:
    """All that means something with the case's normalizer."""
    normalizer = problem.case.normalizer
    return rg.Summary(
        log_sum_exp=normalizer.startswith("softmax"),
        log_prob=normalizer in CHOICES and problem.case.backend != "native",  # which refuses it
        entropy=not normalizer.startswith(("sigmoid", "hard")) and "prior" not in normalizer,
        expected_key=True,
        key_mass=True,
        top_k=TOP_K,
        grid=(min(3, problem.edge.L), min(2, problem.edge.S)),
        weights=True,
    )


def by_backend(problem: Problem, backend: str) -> Callable[..., tuple[Tensor, Summaries]]:
    def compute(**arguments: Any) -> tuple[Tensor, Summaries]:
        output, result = rg.attend(**arguments, summary=wanted(problem), backend=backend)
        return output, {name: x for name, x in vars(result).items() if x is not None}

    return compute


def by_definition(problem: Problem, visible: Tensor, *, hold: bool = False) -> Callable[..., tuple[Tensor, Summaries]]:
    def compute(**arguments: Any) -> tuple[Tensor, Summaries]:
        found = plain.attend(arguments, visible, hold=hold)
        asked = wanted(problem)
        result = plain.summarize(
            found, key_start=problem.edge.key_start, top_k=min(TOP_K, problem.edge.S), grid=asked.grid
        )
        for name in ("entropy", "log_prob"):
            if not getattr(asked, name):
                del result[name]
        return found.output, {name: x for name, x in result.items() if x is not None}

    return compute


def run(
    problem: Problem, compute: Callable[..., tuple[Tensor, Summaries]], leaves: dict[str, Tensor]
) -> tuple[Summaries, Summaries]:
    """The summaries, and the gradients of the differentiable ones together with the output."""
    output, result = compute(**problem.arguments(leaves))
    inputs = {name: x for name, x in leaves.items() if x.requires_grad}
    sums = [result[name] for name in DIFFERENTIABLE if name in result and result[name].requires_grad]
    # Multiples of 1/8, exact in every dtype. A row that sees nothing has log-sum-exp -inf and passes no gradient on.
    incoming = [((torch.arange(x.numel()) % 7 - 3) / 8).reshape(x.shape).to(x.dtype) for x in sums]
    grads = torch.autograd.grad(
        [output, *sums], list(inputs.values()), [problem.incoming(leaves), *incoming], materialize_grads=True
    )
    return {name: x.detach() for name, x in result.items()}, dict(zip(inputs, grads, strict=True))


def test_summaries(summary_case: Case, monkeypatch: pytest.MonkeyPatch, record_property) -> None:
    case = summary_case
    record_property("ran", f"{case.backend}, summaries")
    if case.tile:
        monkeypatch.setattr(tiling, "TILE", case.tile_size)
    problem, visible = make_problem(case)
    dtype, double = DTYPES[case.dtype], torch.float64
    truth, true_grads = run(problem, by_backend(problem, "reference"), problem.leaves(double, exact=True))
    naive, naive_grads = run(problem, by_definition(problem, visible), problem.leaves(double, exact=True))
    same, same_grads = run(problem, by_definition(problem, visible), problem.leaves(dtype, exact=True))
    _, terms = run(problem, by_definition(problem, visible, hold=True), problem.leaves(double, exact=True))
    leaves = problem.leaves(dtype)
    if problem.edge.poison:
        poison(problem, visible, leaves)
    with_gradients, grads = run(problem, by_backend(problem, case.backend), leaves)
    with torch.no_grad():  # which may go another way
        _, without = by_backend(problem, case.backend)(**problem.arguments(leaves))

    eps, root = torch.finfo(dtype).eps, problem.edge.S**0.5
    # Without gradients a kernel may take denormal weights for 0: a mass of little more has no mean.
    wide = torch.finfo(torch.promote_types(dtype, torch.float32))
    little = truth["weights"].sum(-1) < wide.tiny / wide.eps
    for found, left_out in ((with_gradients, torch.zeros_like(little)), (without, little)):
        assert set(found) == set(truth) == {*naive, "top_keys"}
        for name in naive:
            k = naive[name].shape[-1]  # fewer than TOP_K where there are fewer keys
            exact = truth[name][..., :k] if name == "top_weights" else truth[name]
            got = found[name][..., :k] if name == "top_weights" else found[name]
            if name in ("expected_key", "key_variance"):
                got = torch.where(left_out, exact, got.double())
            scale = 1 + float(torch.where(exact.isinf(), 0, exact).abs().max())
            assert error(naive[name], exact) <= 1e-10 * scale, f"reference, {name}"
            assert error(got, exact) <= 2 * error(same[name], exact) + 4 * eps * root * scale, name
        check_top_keys(found, truth["weights"], problem, 2 * error(same["weights"], truth["weights"]) + 4 * eps * root)

    summed = max(problem.edge.S, problem.edge.L * problem.edge.H // problem.edge.G) ** 0.5
    for name, exact in true_grads.items():
        scale = max(float(exact.abs().max()), float(terms[name].abs().max()))
        assert error(naive_grads[name], exact) <= 1e-10 * (1 + scale), f"reference, gradient of {name}"
        allowed = 3 * error(same_grads[name], exact) + 4 * eps * summed * scale
        assert error(grads[name], exact) <= allowed, f"gradient of {name}"


def check_top_keys(found: Summaries, weights: Tensor, problem: Problem, allowed: float) -> None:
    """The keys are different, their true weights are the top weights, and -1 stands where there is no weight."""
    keys, top = found["top_keys"], found["top_weights"]
    assert keys.shape == top.shape == (*weights.shape[:3], TOP_K)
    assert torch.equal(keys == -1, top == 0)
    columns = torch.where(keys == -1, 0, keys - problem.edge.key_start)
    at_keys = torch.where(keys == -1, 0, weights.gather(-1, columns))
    assert error(top, at_keys) <= allowed
    marks = torch.zeros(weights.shape).scatter_add(-1, columns, (keys != -1).float())
    assert float(marks.max()) <= 1


@pytest.mark.parametrize("backend", ["reference", "chunked"])
@pytest.mark.parametrize("normalizer", NORMALIZERS)
@pytest.mark.parametrize("dtype", DTYPES)
def test_asking_leaves_the_output_bitwise_the_same(backend: str, normalizer: str, dtype: str, monkeypatch) -> None:
    monkeypatch.setattr(tiling, "TILE", 300)
    problem = Problem.of(Case(backend, "dot", normalizer, "nested", "relative", dtype, "dropout"))
    arguments = problem.arguments(problem.leaves(DTYPES[dtype]))
    alone = rg.attend(**arguments, backend=backend)
    for summary in (wanted(problem), rg.Summary(top_k=2), rg.Summary(key_mass=True)):
        assert torch.equal(rg.attend(**arguments, summary=summary, backend=backend)[0], alone)
