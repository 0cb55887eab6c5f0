"""With gradients through a summary of few pairs, the dense computation is faster than tiles."""

import torch

import regard as rg


def test_small_calls_with_gradients_through_a_summary_are_dense() -> None:
    query, key = torch.randn(2, 1, 1, 8, requires_grad=True), torch.randn(2, 1, 9, 8)
    score, weights = rg.Additive(torch.randn(8)), rg.Summary(weights=True)
    assert rg.plan(query, key, key, score=score, summary=weights).backend == "reference"
    many = torch.randn(2, 1, 1 << 15, 8)
    assert rg.plan(query, many, many, score=score, summary=weights).backend != "reference"
    plain = rg.plan(query, key, key, score=score).backend
    assert plain == rg.plan(query.detach(), key, key, score=score, summary=weights).backend
    with torch.no_grad():
        assert rg.plan(query, key, key, score=score, summary=weights).backend == plain
