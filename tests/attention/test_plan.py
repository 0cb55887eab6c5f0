"""The plan: which backend, why not the others, at what cost; and what an explicit backend and autocast do."""

from typing import Any

import pytest
import torch
from torch import Tensor

import regard as rg
from regard import kernels
from regard.attention.backends.chunked import Chunked
from regard.attention.backends.native.backend import Native
from regard.attention.backends.reference import Reference
from regard.attention.backends.sdpa import SDPA
from regard.attention.engine import call_cache
from regard.attention.patterns.pattern import Pattern
from regard.errors import UnsupportedError

CLASSES = {"native": Native, "sdpa": SDPA, "chunked": Chunked, "reference": Reference}


def inputs(length: int, keys: int | None = None, batch: int = 1, dtype: torch.dtype = torch.float32) -> list[Tensor]:
    sizes = (length, keys or length, keys or length)
    generator = torch.Generator().manual_seed(1)
    return [torch.randn(batch, 2, size, 8, generator=generator).to(dtype) for size in sizes]


@pytest.fixture
def no_kernels(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a machine without a C++ compiler."""
    monkeypatch.setattr(kernels, "missing", lambda: "installed without its C++ kernels")


@pytest.fixture
def forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    """No call is remembered from another test."""
    monkeypatch.setattr(call_cache, "_cache", {})


# With the kernels, they run what they compute.
NATIVE: list[tuple[int, dict[str, Any], str]] = [
    (16, {}, "native"),
    (2048, {"pattern": rg.Causal() & rg.SlidingWindow(left=9), "bias": rg.ALiBi.for_heads(2)}, "native"),
    (2048, {"score": rg.Cosine(1.0), "summary": rg.Summary(entropy=True), "dropout": 0.1}, "native"),
    (2048, {"normalizer": rg.Sparsemax()}, "native"),
    (2048, {"score": rg.Additive(torch.ones(8)), "normalizer": rg.Entmax(1.5)}, "native"),
    (2048, {"score": rg.LocationAware(torch.ones(8), torch.ones(2048, 3), torch.ones(3, 8))}, "native"),
    (16, {"score": rg.LocationAware(torch.ones(8), torch.ones(16, 16, 3), torch.ones(3, 8))}, "reference"),
    (2048, {"normalizer": rg.NormalizedSigmoid()}, "chunked"),
]
# Without them:
RULES: list[tuple[int, dict[str, Any], str]] = [
    (16, {}, "sdpa"),
    (2048, {}, "sdpa"),
    (2048, {"pattern": rg.Causal()}, "sdpa"),  # no mask is needed
    (512, {"pattern": rg.Causal() & rg.SlidingWindow(left=9)}, "sdpa"),  # a mask of 512 x 512 is cheap
    (2048, {"pattern": rg.Causal() & rg.SlidingWindow(left=9)}, "chunked"),
    (2048, {"bias": rg.ALiBi.for_heads(2)}, "chunked"),
    (16, {"normalizer": rg.Sparsemax()}, "reference"),
    (2048, {"normalizer": rg.Sparsemax()}, "chunked"),
    (16, {"score": rg.Additive(torch.ones(8))}, "reference"),
    (200, {"score": rg.Cosine(1.0)}, "reference"),
    (200, {"score": rg.Additive(torch.ones(8))}, "chunked"),  # as many pairs, but each takes head_dim numbers
    (16, {"dropout": 0.1}, "reference"),
    (2048, {"dropout": 0.1}, "chunked"),
    (2048, {"summary": rg.Summary(entropy=True)}, "chunked"),
]


@pytest.mark.parametrize(("length", "arguments", "expected"), NATIVE, ids=str)
def test_auto_with_kernels(length: int, arguments: dict[str, Any], expected: str) -> None:
    assert rg.plan(*inputs(length), **arguments).backend == expected
    assert rg.plan(*inputs(length, batch=7), **arguments).backend == expected


@pytest.mark.usefixtures("no_kernels")
@pytest.mark.parametrize(("length", "arguments", "expected"), RULES, ids=str)
def test_auto(length: int, arguments: dict[str, Any], expected: str) -> None:
    plan = rg.plan(*inputs(length), **arguments)
    assert plan.backend == expected
    assert set(plan.refusals) | set(plan.passed_over) | {plan.backend} == set(CLASSES)
    assert rg.plan(*inputs(length, batch=7), **arguments).backend == expected  # never by batch size


@pytest.mark.usefixtures("no_kernels", "forgotten")
@pytest.mark.parametrize(("length", "arguments", "expected"), RULES[:10], ids=str)
def test_the_planned_backend_runs(length: int, arguments: dict[str, Any], expected: str, monkeypatch) -> None:
    ran = []
    for name, kind in CLASSES.items():
        original = kind.run
        monkeypatch.setattr(
            kind, "run", lambda self, call, name=name, run=original: ran.append(name) or run(self, call)
        )
    rg.attend(*inputs(length), **arguments)
    assert ran == [expected]


@pytest.mark.parametrize("backend", CLASSES)
def test_an_explicit_backend_runs_or_refuses(backend: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, kind in CLASSES.items():
        if name != backend:
            monkeypatch.setattr(kind, "run", lambda *_: pytest.fail("fell back"))
    assert rg.attend(*inputs(16), backend=backend).shape == (1, 2, 16, 8)
    assert rg.plan(*inputs(16), backend=backend).backend == backend
    arguments = {"score": rg.Dot(softcap=2.0), "normalizer": rg.Softmax(sink=torch.zeros(2)), "dropout": 0.1}
    if backend != "sdpa":
        rg.attend(*inputs(16), **arguments, backend=backend)
        return
    with pytest.raises(UnsupportedError) as caught:
        rg.attend(*inputs(16), **arguments, backend=backend)
    for reason in ("softcap", "sink", "dropout"):  # every reason, not the first
        assert reason in str(caught.value)


def test_refusals_name_each_value() -> None:
    arguments = {"score": rg.Cosine(2.0), "normalizer": rg.Entmax(1.5), "summary": rg.Summary(entropy=True)}
    reasons = rg.plan(*inputs(16), **arguments).refusals
    assert list(reasons) == ["sdpa"]
    assert [reason.split(":")[0] for reason in reasons["sdpa"]] == ["score", "normalizer", "summary"]
    assert "Cosine(scale=2.0)" in reasons["sdpa"][0]
    assert "Entmax(alpha=1.5)" in reasons["sdpa"][1]


def test_explanation() -> None:
    plan = rg.plan(*inputs(2048), pattern=rg.Causal(), normalizer=rg.Sparsemax(), backend="chunked")
    lines = plan.explain().split("\n")
    assert lines[0] == "AttentionSpec(normalizer=Sparsemax(), pattern=Causal())"
    assert lines[1] == ("query (1, 2, 2048, 8), key (1, 2, 2048, 8), value (1, 2, 2048, 8), torch.float32, cpu")
    assert lines[2].startswith("backend chunked: ")
    assert "multiply-adds" in lines[2]
    assert "MB working memory" in lines[2]
    assert "density 0.5002" in lines[2]
    assert lines[3] == "not native: another backend was requested"
    assert lines[4] == "not sdpa: normalizer: computes Softmax only, not Sparsemax()"
    assert lines[5] == "not reference: another backend was requested"
    assert "not reference: native is expected to be faster" in rg.plan(*inputs(16)).explain()
    asked = rg.plan(*inputs(16), backend="reference").explain()
    assert "not sdpa: another backend was requested" in asked


def test_costs() -> None:
    plan = rg.plan(*inputs(100, 70), backend="reference")
    assert plan.multiply_adds == 2 * 100 * 70 * (8 + 8)
    assert plan.working_bytes >= 2 * 100 * 70 * 4
    assert plan.density == 1.0
    window = rg.Causal() & rg.SlidingWindow(left=63)
    narrow, wide = (rg.plan(*inputs(8192), pattern=p, backend="chunked") for p in (window, rg.Causal()))
    assert narrow.density == pytest.approx((64 * 65 / 2 + (8192 - 64) * 64) / 8192**2)
    assert narrow.multiply_adds < 0.1 * wide.multiply_adds
    assert narrow.multiply_adds >= 2 * 8192**2 * narrow.density * 16
    assert wide.working_bytes < 8192**2  # not the whole matrix


def test_planning_does_not_compute(monkeypatch: pytest.MonkeyPatch) -> None:
    for kind in CLASSES.values():
        monkeypatch.setattr(kind, "run", lambda *_: pytest.fail("ran"))
    assert "backend " in rg.plan(*inputs(2048), pattern=rg.Causal()).explain()


@pytest.mark.parametrize("backend", [*CLASSES, "auto"])
def test_autocast(backend: str) -> None:
    table = torch.randn(8, 2, generator=torch.Generator().manual_seed(2), requires_grad=True)
    given = [x.requires_grad_() for x in inputs(16)]
    with torch.autocast("cpu", dtype=torch.bfloat16):
        output = rg.attend(*given, bias=rg.RelativeBias(table, max_distance=9), backend=backend)
    assert output.dtype == torch.bfloat16
    half = [x.detach().bfloat16() for x in given]
    expected = rg.attend(*half, bias=rg.RelativeBias(table, max_distance=9), backend=backend)
    assert torch.equal(output, expected)  # as if the caller had cast: sums stay in float32
    grads = torch.autograd.grad(output.float().sum(), [*given, table])
    assert all(g.dtype == torch.float32 and bool(g.isfinite().all()) for g in grads)


@pytest.mark.parametrize("backend", CLASSES)
@pytest.mark.parametrize(
    "pattern", [rg.Causal(), rg.Causal() & rg.SlidingWindow(left=2), rg.GlobalTokens([3])], ids=str
)
def test_each_sequence_from_its_own_start(pattern: Pattern, backend: str) -> None:
    query, key, value = inputs(3, 11, batch=4)
    starts = [0, 4, 8, -2]
    arguments = {"pattern": pattern, "bias": rg.ALiBi.for_heads(2), "backend": backend}
    found = rg.attend(query, key, value, query_start=torch.tensor(starts), **arguments)
    for i, start in enumerate(starts):
        one = slice(i, i + 1)
        expected = rg.attend(query[one], key[one], value[one], query_start=start, **arguments)
        torch.testing.assert_close(found[one], expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("backend", CLASSES)
def test_positions_may_be_moved_together(backend: str) -> None:
    query, key, value = inputs(5, 9)
    arguments = {"pattern": rg.Causal() & rg.SlidingWindow(left=3), "bias": rg.ALiBi.for_heads(2), "backend": backend}
    expected = rg.attend(query, key, value, **arguments)
    for start in (1, 1000):
        moved = rg.attend(query, key, value, key_start=start, **arguments)
        torch.testing.assert_close(moved, expected)
        moved = rg.attend(query, key, value, key_start=start, query_start=start + 4, **arguments)
        torch.testing.assert_close(moved, expected)
