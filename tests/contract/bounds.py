"""How far a backend may be from the truth: derived from what plain PyTorch of the same precision makes of the case.

Outputs: 2 x the error of plain PyTorch + 4 eps sqrt(S) max |value|.
Gradients: 3 x the error of plain PyTorch + 4 eps sqrt(n) scale, where n is the number of entries of the score matrix
that add up to an entry at most, and the scale is that of the gradient itself or of the terms that it is a difference
of: a softmax's gradient is what goes through a score minus what goes through its row's sum, and rounding is relative
to the terms, even where they cancel.

With alpha above 2 the derivatives of entmax grow without bound towards the threshold, and one
error of plain PyTorch is then a matter of luck: in another order of its sums it is several times as large. So it counts
as no less than what the rounding of the scores alone makes of the true formula.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

import regard as rg
from tests.contract import plain
from tests.contract.cases import DTYPES, Case, Problem

Attend = Callable[..., Tensor]
STEEP = ("entmax_per_head", "entmax_sparse")  # alpha may be above 2
NUDGES = 3  # draws of the rounding of scores


@dataclass(frozen=True)
class Outcome:
    """What a computation of a case gives: its output, and the gradient of every floating tensor."""

    output: Tensor
    gradients: dict[str, Tensor]


@dataclass(frozen=True)
class Expected:
    """The truth about a case, and how far from it each tensor may be."""

    truth: Outcome
    output: float
    gradients: dict[str, float]


def outcome(problem: Problem, attend: Attend, leaves: dict[str, Tensor]) -> Outcome:
    """Forward and backward."""
    output = attend(**problem.arguments(leaves))
    wanted = {name: x for name, x in leaves.items() if x.requires_grad}
    incoming = problem.incoming(leaves)
    grads = torch.autograd.grad(output, list(wanted.values()), incoming, materialize_grads=True)
    return Outcome(output.detach(), dict(zip(wanted, grads, strict=True)))


def make_problem(case: Case) -> tuple[Problem, Tensor]:
    """The case's tensors and what is visible; drawn again until no score is close to a threshold that decides."""
    for attempt in range(100):
        problem = Problem.of(case, attempt)
        arguments = problem.arguments(problem.leaves(torch.float64, exact=True))
        visible = plain.visibility(arguments)
        with torch.no_grad():
            margin = plain.attend(arguments, visible).margin
        if margin > 0.5 / max(1, int(visible.sum())):  # as wide as still occurs often enough to be found
            return problem, visible
    raise RuntimeError(f"{case}: no draw has a margin")


def expect(problem: Problem, visible: Tensor) -> Expected:
    """The truth by the reference backend in float64, and the bounds."""
    dtype = DTYPES[problem.case.dtype]

    def naive(**options: Any) -> Attend:
        return lambda **arguments: plain.attend(arguments, visible, **options).output

    def leaves(dtype: torch.dtype) -> dict[str, Tensor]:
        return problem.leaves(dtype, exact=True)

    truth = outcome(problem, reference, leaves(torch.float64))
    same = [outcome(problem, naive(), leaves(dtype))]
    terms = outcome(problem, naive(hold=True), leaves(torch.float64))
    check_reference(truth, outcome(problem, naive(), leaves(torch.float64)))

    s, eps = problem.edge, torch.finfo(dtype).eps
    if problem.case.normalizer in STEEP:
        same += [outcome(problem, naive(unit=eps / 2, seed=seed), leaves(torch.float64)) for seed in range(NUDGES)]
    value = float(problem.tensors["value"].abs().max())
    entries = math.sqrt(max(s.S, s.L * s.H // s.G))
    return Expected(
        truth,
        2 * max(error(one.output, truth.output) for one in same) + 4 * eps * math.sqrt(s.S) * value,
        {
            name: 3 * max(error(one.gradients[name], grad) for one in same)
            + 4 * eps * entries * max(float(grad.abs().max()), float(terms.gradients[name].abs().max()))
            for name, grad in truth.gradients.items()
        },
    )


def reference(**arguments: Any) -> Tensor:
    """The reference backend."""
    return rg.attend(**arguments, backend="reference")


def check_reference(truth: Outcome, naive: Outcome) -> None:
    """The reference means what the formulas say: float64 agrees to 1e-10 of what is summed."""
    assert error(naive.output, truth.output) <= 1e-10 * (1 + float(truth.output.abs().max()))
    for name, grad in truth.gradients.items():
        found = error(naive.gradients[name], grad)
        assert found <= 1e-10 * (1 + float(grad.abs().max())), f"reference, gradient of {name}: {found}"


def error(found: Tensor, truth: Tensor) -> float:
    """The largest difference; what is infinite must be so in both; NaN never passes."""
    found, truth = found.double(), truth.double()
    if found.shape != truth.shape or not torch.equal(found.isinf(), truth.isinf()):
        return math.inf
    difference = torch.where(truth.isinf() & (found == truth), 0.0, found - truth).abs()
    return math.inf if difference.isnan().any() else float(difference.max())


def poison(problem: Problem, visible: Tensor, leaves: dict[str, Tensor]) -> None:
    """NaN and Inf in the queries that see nothing, their incoming gradient, and the keys and values nobody sees."""
    groups = problem.edge.G
    blind = ~visible.any(-1)
    unseen = ~visible.any(2).unflatten(1, (groups, -1)).any(2)
    with torch.no_grad():
        for name, heads, where in (
            ("query", problem.edge.H, blind),
            ("incoming", problem.edge.H, blind),
            ("key", groups, unseen),
            ("value", groups, unseen),
        ):
            view = problem.view(leaves[name], heads)
            count = int(where.sum()) * view.shape[-1]
            bad = torch.tensor([torch.nan, torch.inf, -torch.inf]).repeat(-(-count // 3))[:count]
            view[where] = bad.reshape(-1, view.shape[-1]).to(view.dtype)
