"""Rows of scores that are hard for sparse normalizers, and what a backend makes of them.

Query and key have one feature, and the query's is 1: so the keys are the scores. Their gradient is that of a bias of 0,
which may be float32 beside half inputs.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from itertools import product

import torch
from torch import Tensor

import regard as rg
from regard import kernels
from regard.attention.normalizer import Normalizer

ALPHAS = (1.001, 1.01, 1.1, 1.249, 1.25, 1.3, 1.5, 1.8, 2.0, 2.1, 2.5, 4.0, 8.0, 16.0)
KEYS = (1, 2, 3, 17, 64, 65, 512, 4096, 65536)
SCORES = (
    "normal", "wide", "within 1e-3", "within 1e-5", "within 1e-6", "within 1e-20", "equal", "far up", "one huge",
    "one above its reach", "one at its reach", "one below its reach", "steps", "ties", "hidden", "all hidden",
)  # fmt: skip
DTYPES = {str(d).removeprefix("torch."): d for d in (torch.float64, torch.float32, torch.bfloat16, torch.float16)}
ISAS = tuple(kernels.module().isas()) if kernels.missing() is None else ()
BACKENDS = ("reference", "chunked", *(f"native {isa}" for isa in ISAS))
ROWS = 2


@dataclass(frozen=True)
class Case:
    """A row of scores, and who weighs it."""

    backend: str
    scores: str
    alpha: float
    keys: int
    dtype: str
    learned: bool = False  # alpha is a tensor
    seed: int = 0

    def __str__(self) -> str:
        learned = "-learned" * self.learned
        return f"{self.backend}-{self.scores}-{self.alpha}{learned}-{self.keys}-{self.dtype}".replace(" ", "_")

    @property
    def wide(self) -> torch.dtype:
        """What sums are taken in."""
        return torch.promote_types(DTYPES[self.dtype], torch.float32)

    def row(self) -> Tensor:
        """The scores (S,) in float64, of values that the dtype holds; -inf where hidden."""
        x = torch.randn(self.keys, generator=torch.Generator().manual_seed(self.seed), dtype=torch.float64)
        reach = 1 / (self.alpha - 1)  # so far below the largest score the last weight is
        match self.scores:
            case "wide":
                x *= 100
            case "equal":
                x[:] = -3.3
            case "far up":
                x += 1000
            case "one huge":
                x[0] = 1000
            case "one above its reach" | "one at its reach" | "one below its reach":
                factor = {"above": 1.01, "at": 1.0, "below": 0.99}[self.scores.split()[1]]
                x[:] = 1.7 - factor * reach
                x[0] = 1.7
            case "steps":  # halves of the way, so that each step of a search finds fewer
                x = -reach * (1 - 2.0 ** -(torch.arange(self.keys) % 24).double())
                x[0] = 0
            case "ties":
                x = (2 * x).round() / 4
            case "hidden" | "all hidden":
                x[torch.arange(self.keys) % 3 != 1] = -torch.inf
                x[:] = -torch.inf if self.scores == "all hidden" else x
            case name if name.startswith("within"):
                x *= float(name.split()[1])
        return x.to(DTYPES[self.dtype]).double()

    def value(self, dims: int = 3) -> Tensor:
        """Values (S, V) in float64, the first feature 1 for each key: its output is the sum of the weights."""
        generator = torch.Generator().manual_seed(self.seed + 1)
        value = torch.randn(self.keys, dims, generator=generator, dtype=torch.float64)
        value[:, 0] = 1
        return value.to(DTYPES[self.dtype]).double()


@dataclass
class Weighed:
    """What comes of a case: one row of it in float64, all rows being the same."""

    output: Tensor  # (V,)
    sum: float  # of the weights, exactly
    of_scores: Tensor  # (V, S): the gradient of each feature
    of_alpha: Tensor | None  # (V,), where alpha is learned


@contextmanager
def on(backend: str) -> Iterator[str]:
    """The backend's name for `attend`, its instruction set chosen meanwhile."""
    name, _, isa = backend.partition(" ")
    if not isa:
        yield name
        return
    native, best = kernels.module(), kernels.isa()
    native.choose(isa)
    try:
        yield name
    finally:
        native.choose(best)


def attend(case: Case, row: Tensor, value: Tensor, dtype: torch.dtype, backend: str) -> Weighed:
    """A case's output and gradients. Hidden scores are hidden by a pattern."""
    seen, wide = row > -torch.inf, torch.promote_types(dtype, torch.float32)
    key = torch.where(seen, row, 0.0).to(dtype)[None, None, :, None]
    query = torch.ones(1, 1, ROWS, 1, dtype=dtype)
    bias = torch.zeros(case.keys, dtype=wide, requires_grad=True)
    alpha = torch.tensor([case.alpha], dtype=wide, requires_grad=True)
    with on(backend) as name:
        given = (query, key, value.to(dtype)[None, None])
        options = {
            "score": rg.Dot(scale=1.0), "normalizer": normalizer(case, alpha), "bias": bias, "backend": name,
            "pattern": rg.Full() if bool(seen.all()) else rg.Mask(seen.expand(1, 1, ROWS, -1)),
        }  # fmt: skip
        with torch.no_grad():
            weights = rg.attend(*given, **options, summary=rg.Summary(weights=True))[1].weights
        output = rg.attend(*given, **options)
        wanted = [bias, alpha] if case.learned else [bias]
        grads = [torch.autograd.grad(output[0, 0, 0, v], wanted, retain_graph=True) for v in range(value.shape[-1])]
    of_scores = torch.stack([g[0].double() for g in grads])
    of_alpha = torch.stack([g[1][0].double() for g in grads]) if case.learned else None
    return Weighed(output.detach()[0, 0, 0].double(), float(weights[0, 0, 0].double().sum()), of_scores, of_alpha)


def normalizer(case: Case, alpha: Tensor) -> Normalizer:
    if case.learned:
        return rg.Entmax(alpha)
    return rg.Sparsemax() if case.alpha == 2 else rg.Entmax(case.alpha)


@cache
def full() -> tuple[Case, ...]:
    """Every scores, alpha and dtype on every backend, the number of keys in turn; every third alpha is learned."""
    every = product(BACKENDS, SCORES, ALPHAS, DTYPES)
    return tuple(
        Case(backend, scores, alpha, KEYS[(5 * i) % len(KEYS)], dtype, learned=i % 3 == 1, seed=i)
        for i, (backend, scores, alpha, dtype) in enumerate(every)
    )


@cache
def sample() -> tuple[Case, ...]:
    """Some of it: a stride that shares no factor with an axis meets all of their entries."""
    return full()[::53]
