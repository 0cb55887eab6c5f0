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
