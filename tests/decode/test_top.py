"""The greatest entries, against torch.topk."""

import pytest
import torch

from regard.decode.top import BLOCK, SHORT, top


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
