"""The greatest entries, against torch.topk."""

from collections.abc import Iterator

import pytest
import torch

from regard import kernels
from regard.decode.top import BLOCK, MAX_COUNT, SHORT, top, topk_log_probs
from regard.models.seq2seq import Vocabulary


@pytest.mark.parametrize("size", [1, 7, BLOCK * SHORT - 1, BLOCK * SHORT, BLOCK * SHORT + 13, 8000, 58101])
@pytest.mark.parametrize("count", [1, 8, 129])
def test_top_is_topk(size: int, count: int) -> None:
    x = torch.randn(3, size, generator=torch.Generator().manual_seed(size))
    count = min(count, size)
    values, found = top(x, count)
    expected = x.topk(count, 1)
    assert values.equal(expected.values)
    assert found.equal(expected.indices)


def test_top_sees_the_rest_and_rows_with_gaps() -> None:
    x = torch.zeros(2, 2 * BLOCK * SHORT + 5)[:, 2:]
    x[0, -1], x[1, 0], x[1, 1] = 3.0, 2.0, 1.0
    assert [row[: n + 1] for n, row in enumerate(top(x, 2)[1].tolist())] == [[x.shape[1] - 1], [0, 1]]


def test_top_of_infinities() -> None:
    x = torch.full((1, 4 * BLOCK * SHORT), -torch.inf)
    x[0, 77] = 0.0
    values, found = top(x, 3)
    assert values.tolist() == [[0.0, -torch.inf, -torch.inf]]
    assert found[0, 0] == 77
    assert len(set(found[0].tolist())) == 3


@pytest.fixture(params=kernels.module().isas() if kernels.missing() is None else [None])
def isa(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Each instruction set in turn, the plainest too; without kernels PyTorch's operations."""
    if request.param is None:
        yield
        return
    best = kernels.isa()
    monkeypatch.setattr("regard.decode.top.fast", kernels.module)
    kernels.module().choose(request.param)
    yield
    kernels.module().choose(best)


@pytest.mark.usefixtures("isa")
@pytest.mark.parametrize("size", [1, 7, 63, 64, 65, 8000])
@pytest.mark.parametrize("count", [1, 8, MAX_COUNT, MAX_COUNT + 1])
def test_topk_log_probs(size: int, count: int) -> None:
    x = 3 * torch.randn(5, size + 2, generator=torch.Generator().manual_seed(size))[:, 1:-1]
    values, tokens = topk_log_probs(x, Vocabulary(size=size), min(count, size))
    expected = x.double().log_softmax(1).topk(min(count, size), 1)
    assert values.double().allclose(expected.values, atol=1e-6)
    assert tokens.equal(expected.indices)


@pytest.mark.usefixtures("isa")
def test_topk_log_probs_are_not_what_may_never_be() -> None:
    x = torch.arange(300.0).expand(2, -1) / 50
    values, tokens = topk_log_probs(x, Vocabulary(size=300, never=(298, 299, 130)), 3)
    assert tokens.tolist() == [[297, 296, 295]] * 2
    assert values.allclose(x.log_softmax(1).gather(1, tokens), atol=1e-6)


@pytest.mark.usefixtures("isa")
def test_topk_log_probs_of_equals_are_different_tokens() -> None:
    x = torch.zeros(1, 1000)
    x[0, [3, 900]] = 1.0
    values, tokens = topk_log_probs(x, Vocabulary(size=1000), 50)
    assert set(tokens[0, :2].tolist()) == {3, 900}
    assert len(set(tokens[0].tolist())) == 50
    assert values[0, 2:].unique().allclose(x.log_softmax(1)[0, :1], atol=1e-6)


@pytest.mark.usefixtures("isa")
def test_topk_log_probs_where_there_are_fewer_and_nan() -> None:
    x = torch.full((3, 200), -torch.inf)
    x[0, 77], x[1, 5], x[1, 9], x[2] = 4.0, 1.0, torch.nan, 0.0
    x[2, 150] = torch.inf
    values, tokens = topk_log_probs(x, Vocabulary(size=200), 2)
    assert values[0].tolist() == [0.0, -torch.inf]
    assert tokens[0, 0] == 77
    assert values[1:].isnan().all()


def test_topk_log_probs_of_a_vocabulary_that_mostly_may_never_be() -> None:
    x = torch.arange(300.0)[None] / 50
    values, tokens = topk_log_probs(x, Vocabulary(size=300, never=tuple(range(5, 300))), 2)
    assert tokens.tolist() == [[4, 3]]
    assert values.allclose(x.log_softmax(1).gather(1, tokens), atol=1e-6)


def test_topk_log_probs_where_another_device_is_the_default() -> None:
    x, words = torch.randn(2, 300), Vocabulary(size=300)
    expected = topk_log_probs(x, words, 3)
    with torch.device("meta"):
        found = topk_log_probs(x, words, 3)
    assert all(some.equal(others) for some, others in zip(found, expected, strict=True))
