"""Weights of which almost all are 0: their products are taken number by number, and nobody may notice."""

from typing import Any

import pytest
import torch
from torch import Tensor

import regard as rg
from regard import kernels

pytestmark = pytest.mark.skipif(kernels.missing() is not None, reason=str(kernels.missing()))
NORMALIZERS = [rg.Sparsemax(), rg.Entmax(1.5), rg.Entmax(1.3), rg.Entmax(2.5)]


def results(inputs: list[Tensor], incoming: Tensor, **how: Any) -> list[Tensor]:
    """The output and the gradients."""
    leaves = [x.detach().clone(memory_format=torch.preserve_format).requires_grad_() for x in inputs]
    output = rg.attend(*leaves, **how)
    return [output.detach(), *torch.autograd.grad(output, leaves, incoming)]


def sharp(rows: int, keys: int, dim: int, dtype: torch.dtype = torch.float64) -> list[Tensor]:
    """Queries that weigh a few of many keys."""
    torch.manual_seed(dim)
    return [
        torch.randn(2, 4, rows, dim, dtype=dtype) * 2,
        *(torch.randn(2, 2, keys, dim, dtype=dtype) for _ in range(2)),
    ]


@pytest.mark.parametrize("normalizer", NORMALIZERS, ids=str)
@pytest.mark.parametrize("isa", kernels.module().isas() if kernels.missing() is None else [])
@pytest.mark.parametrize(("mixed", "dim"), [(False, 24), (True, 24), (False, 37), (True, 7)])
def test_it_is_the_same_attention(isa: str, normalizer: rg.Entmax, mixed: bool, dim: int) -> None:
    """With rows that weigh many keys beside them, or none; on every instruction set; against the formula."""
    query, key, value = sharp(80, 130, dim)
    if mixed:
        query[:, :, ::3] = 0  # weighs all keys
    value = value.mT.contiguous().mT  # features that are not neighbors
    incoming = torch.randn(2, 4, 80, dim, dtype=torch.float64)
    how: dict[str, Any] = {
        "normalizer": normalizer,
        "pattern": rg.KeyLengths(torch.tensor([130, 91])) & rg.SlidingWindow(left=90, right=20),
    }
    native, best = kernels.module(), kernels.isa()
    native.choose(isa)
    try:
        bias = torch.randn(1, 4, 80, 130, dtype=torch.float64)
        for more in ({}, {"dropout": 0.3, "seed": 5}, {"bias": bias}, {"score": rg.Dot(softcap=3.0)}):
            found = results([query, key, value], incoming, **how, **more, backend="native")
            expected = results([query, key, value], incoming, **how, **more, backend="reference")
            for x, y in zip(found, expected, strict=True):
                torch.testing.assert_close(x, y, rtol=1e-7, atol=1e-7)
    finally:
        native.choose(best)


ALPHAS = torch.tensor([1.3, 1.5, 2.0, 2.5])
LEARNED = rg.Entmax(ALPHAS)  # an alpha for each head, which is trained
SHARPER = 6  # factor of queries, for a few weights a row


@pytest.mark.parametrize("normalizer", [*NORMALIZERS, LEARNED], ids=[*map(str, NORMALIZERS), "learned"])
@pytest.mark.parametrize("isa", kernels.module().isas() if kernels.missing() is None else [])
@pytest.mark.parametrize(
    ("factor", "listed", "more"),
    [
        (SHARPER, True, {}),
        (SHARPER, True, {"bias": "tensor"}),
        (SHARPER, True, {"bias": "distance"}),
        (SHARPER, False, {"dropout": 0.3, "seed": 5}),
        (SHARPER, False, {"score": rg.Dot(softcap=30.0)}),
        (1, None, {}),  # some blocks have more weights than a list holds
        (0, False, {}),  # all weights
    ],
)
def test_weights_that_the_forward_pass_lists(
    isa: str, normalizer: rg.Entmax, factor: float, listed: bool | None, more: dict[str, Any]
) -> None:
    """The backward pass uses the sparse weights where they are stored, recomputes the others; against the formula."""
    inputs = [*sharp(80, 600, 24, torch.float32), torch.randn(1, 4, 80, 600), torch.rand(4), ALPHAS.clone()]
    inputs[0] *= factor
    incoming = torch.randn(2, 4, 80, 24)

    def attended(leaves: list[Tensor], **how: Any) -> Any:
        query, key, value, bias, slopes, alphas = leaves
        held: dict[str, Any] = {"tensor": {"bias": bias}, "distance": {"bias": rg.ALiBi(slopes)}}
        how = {"pattern": rg.KeyLengths(torch.tensor([600, 0])), **more, **held.get(str(more.get("bias")), {}), **how}
        kind = rg.Entmax(alphas) if normalizer is LEARNED else normalizer
        return rg.attend(query, key, value, normalizer=kind, **how)

    def gradients(output: Tensor, leaves: list[Tensor]) -> list[Tensor]:
        found = torch.autograd.grad(output, leaves, incoming.to(output.dtype), allow_unused=True)
        return [output.detach(), *(torch.zeros((), dtype=torch.float64) if x is None else x for x in found)]

    native, best = kernels.module(), kernels.isa()
    native.choose(isa)
    try:
        weighed = (attended(inputs, summary=rg.Summary(weights=True))[1].weights > 0)[0].sum(-1)
        leaves = [x.clone().requires_grad_() for x in inputs]
        output = attended(leaves, backend="native")
        (lists,) = output.grad_fn.sparse_weights
        counts = lists.view(torch.int64)[
            0, ..., 0
        ]  # of the sequence that sees something: a list begins with its length
        if listed is not None:
            assert torch.equal(counts >= 0, torch.full_like(counts, listed, dtype=torch.bool))
        for block, count in enumerate(counts.unbind(-1)):
            expected = weighed[:, 64 * block : 64 * block + 64].sum(-1)
            assert ((count == expected) | (count == -1)).all()
        found = gradients(output, leaves)
        leaves = [x.double().requires_grad_() for x in inputs]
        exact = gradients(attended(leaves, backend="reference"), leaves)
        for x, y in zip(found, exact, strict=True):
            torch.testing.assert_close(x.double(), y.double(), rtol=2e-4, atol=2e-4 * max(1.0, float(y.abs().max())))
    finally:
        native.choose(best)


@pytest.mark.parametrize("normalizer", NORMALIZERS, ids=str)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_rows_do_not_notice_those_beside(normalizer: rg.Entmax, dtype: torch.dtype) -> None:
    """Rows that weigh few keys, alone and before rows that weigh all of them: the same to the last bit."""
    query, key, value = sharp(50, 300, 40, dtype)
    incoming = torch.randn(2, 4, 50, 40, dtype=dtype)
    alone = results([query, key, value], incoming, normalizer=normalizer, backend="native")
    more = torch.zeros(2, 4, 14, 40, dtype=dtype)
    beside = results(
        [torch.cat((query, more), 2), key, value],
        torch.cat((incoming, more), 2),
        normalizer=normalizer,
        backend="native",
    )
    assert torch.equal(beside[0][:, :, :50], alone[0])
    assert torch.equal(beside[1][:, :, :50], alone[1])
    assert torch.equal(beside[2], alone[2])
    assert torch.equal(beside[3], alone[3])


@pytest.mark.parametrize("normalizer", NORMALIZERS[:2], ids=str)
@pytest.mark.parametrize(
    "pattern", [rg.Causal() & rg.SlidingWindow(left=4), rg.SlidingWindow(left=70, right=3)], ids=str
)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_panels_of_a_strip_are_independent(normalizer: rg.Entmax, pattern: Any, dtype: torch.dtype) -> None:
    """Where the first has a few columns: those of bf16 are packed with what fills up."""
    torch.manual_seed(0)
    inputs = [torch.randn(1, 2, 150, 32).to(dtype) for _ in range(3)]
    incoming = torch.randn(1, 2, 150, 32).to(dtype)
    how = {"normalizer": normalizer, "pattern": pattern}
    found = results(inputs, incoming, **how, backend="native")
    expected = results([x.float() for x in inputs], incoming.float(), **how, backend="reference")
    limit = 1e-5 if dtype == torch.float32 else 4e-2
    for x, y in zip(found, expected, strict=True):
        torch.testing.assert_close(x.float(), y, rtol=limit, atol=limit * y.abs().max().item())
