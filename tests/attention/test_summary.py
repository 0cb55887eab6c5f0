"""Summaries by hand, from the weights themselves."""

import math

import pytest
import torch

import regard as rg

BACKENDS = ["reference", "chunked"]
# Scores log(p): the weights are p. Row 1 sees nothing.
WEIGHTS = torch.tensor([[0.5, 0.25, 0.25, 0.0], [0.0, 0.0, 0.0, 0.0], [0.0, 0.125, 0.0, 0.875]], dtype=torch.float64)
SEES = rg.Mask(WEIGHTS > 0)
QUERY = WEIGHTS.log().clamp(min=-100)[None, None]
KEY = torch.eye(4, dtype=torch.float64)[None, None]
VALUE = torch.tensor([[1.0], [2.0], [3.0], [4.0]], dtype=torch.float64)[None, None]


def summary_of(backend: str, key_start: int = 0, normalizer=rg.Softmax(), **asked: object) -> rg.SummaryResult:  # noqa: B008 frozen
    arguments = {"score": rg.Dot(scale=1.0), "pattern": SEES, "normalizer": normalizer, "key_start": key_start}
    return rg.attend(QUERY, KEY, VALUE, **arguments, summary=rg.Summary(**asked), backend=backend)[1]


def numbers(x: torch.Tensor) -> list[float]:
    return pytest.approx(x.flatten().tolist(), abs=1e-12)


@pytest.mark.parametrize("backend", BACKENDS)
def test_weights_and_their_sums(backend: str) -> None:
    found = summary_of(backend, weights=True, key_mass=True)
    assert WEIGHTS.flatten().tolist() == numbers(found.weights)
    assert numbers(found.key_mass) == [0.5, 0.375, 0.25, 0.875]


@pytest.mark.parametrize("backend", BACKENDS)
def test_log_sum_exp(backend: str) -> None:
    assert [0.0, -math.inf, 0.0] == numbers(summary_of(backend, log_sum_exp=True).log_sum_exp)
    sink = rg.Softmax(sink=torch.tensor([math.log(3)], dtype=torch.float64))
    expected = [math.log(4), math.log(3), math.log(4)]
    assert expected == numbers(summary_of(backend, normalizer=sink, log_sum_exp=True).log_sum_exp)


@pytest.mark.parametrize("backend", BACKENDS)
def test_entropy(backend: str) -> None:
    last = -(0.125 * math.log(0.125) + 0.875 * math.log(0.875))
    assert [1.5 * math.log(2), 0.0, last] == numbers(summary_of(backend, entropy=True).entropy)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("start", [0, 10, 1_000_000])
def test_expected_key_and_its_variance(backend: str, start: int) -> None:
    found = summary_of(backend, key_start=start, expected_key=True)
    means = [0.25 + 0.5, 0.0, 0.125 + 3 * 0.875]
    variances = [0.25 + 4 * 0.25 - means[0] ** 2, 0.0, 0.125 + 9 * 0.875 - means[2] ** 2]
    assert [mean + start if i != 1 else 0.0 for i, mean in enumerate(means)] == pytest.approx(
        found.expected_key.flatten().tolist(), rel=1e-14
    )
    assert variances == pytest.approx(found.key_variance.flatten().tolist(), abs=1e-9)


@pytest.mark.parametrize("backend", BACKENDS)
def test_rows_that_do_not_sum_to_one_are_taken_to(backend: str) -> None:
    found = summary_of(backend, normalizer=rg.Sigmoid(), expected_key=True)
    odds = [p / (1 + p) for p in (0.5, 0.25, 0.25)]
    mean = (odds[1] + 2 * odds[2]) / sum(odds)
    assert float(found.expected_key[0, 0, 0]) == pytest.approx(mean, rel=1e-12)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("k", [1, 2, 6])
def test_top_k(backend: str, k: int) -> None:
    found = summary_of(backend, key_start=5, top_k=k)
    keys, weights = found.top_keys[0, 0], found.top_weights[0, 0]
    assert keys.shape == weights.shape == (3, k)
    assert weights[0].tolist() == pytest.approx([0.5, 0.25, 0.25, 0.0, 0.0, 0.0][:k], abs=1e-12)
    assert keys[0, 0] == 5
    assert sorted(keys[0, 1:3].tolist()) in ([], [6, 7], [6], [7])
    assert keys[1].tolist() == [-1] * k
    assert not bool(weights[1].any())
    assert keys[2].tolist() == [8, 6, -1, -1, -1, -1][:k]


@pytest.mark.parametrize("backend", BACKENDS)
def test_grid(backend: str) -> None:
    # 3 queries in 2 bins: 0, 1 | 2. 4 keys in 2 bins: 0, 1 | 2, 3. Means over each cell.
    found = summary_of(backend, grid=(2, 2)).grid
    assert numbers(found) == [0.75 / 4, 0.25 / 4, 0.125 / 2, 0.875 / 2]
    assert WEIGHTS.flatten().tolist() == numbers(summary_of(backend, grid=(3, 4)).grid)
    assert numbers(summary_of(backend, grid=(1, 1)).grid) == [2 / 12]


@pytest.mark.parametrize("backend", BACKENDS)
def test_what_is_not_asked_for_is_none(backend: str) -> None:
    found = summary_of(backend, entropy=True)
    assert [name for name, x in vars(found).items() if x is not None] == ["entropy"]
    found = summary_of(backend, expected_key=True)
    assert [name for name, x in vars(found).items() if x is not None] == ["expected_key", "key_variance"]


@pytest.mark.parametrize("backend", BACKENDS)
def test_half_inputs_are_summarized_in_float32(backend: str) -> None:
    half = [x.bfloat16() for x in (QUERY.clamp(min=-10), KEY, VALUE)]
    asked = rg.Summary(entropy=True, key_mass=True, top_k=2)
    output, found = rg.attend(*half, summary=asked, backend=backend)
    assert output.dtype == torch.bfloat16
    assert found.entropy.dtype == found.key_mass.dtype == found.top_weights.dtype == torch.float32
    assert found.top_keys.dtype == torch.int64
