"""Bahdanau's and Luong's formulas on small numbers, worked with Python's `math` alone."""

import math

import pytest
import torch

import regard as rg

BACKENDS = ["reference", "chunked"]
QUERIES = [[0.5, -1.0], [2.0, 0.25], [-0.75, 1.5]]  # s or h_t
KEYS = [[1.0, 0.0], [0.5, 0.5], [-1.0, 2.0], [0.25, -0.5]]  # h or h_s
VALUES = [[1.0, 0.0, 2.0], [0.0, 1.0, -1.0], [3.0, 0.5, 0.0], [-2.0, 0.25, 1.0]]
VECTOR = [0.75, -1.25]
MATRIX = [[0.5, -0.25], [1.0, 0.75]]
OTHER = [[0.1, 0.4], [-0.6, 0.2]]
ROWS = [[0.3, -0.2], [0.1, 0.9], [-0.5, 0.4], [0.7, 0.6]]  # a row of weights for each key position


def matter(rows: list[list[float]]) -> torch.Tensor:
    return torch.tensor(rows, dtype=torch.float64)


def dot(x: list[float], y: list[float]) -> float:
    return math.fsum(a * b for a, b in zip(x, y, strict=True))


def times(matrix: list[list[float]], x: list[float]) -> list[float]:
    return [dot(row, x) for row in matrix]


def softmax(scores: list[float]) -> list[float]:
    terms = [math.exp(score) for score in scores]
    return [term / math.fsum(terms) for term in terms]


def mixed(weights: list[list[float]]) -> torch.Tensor:
    """The context vectors: Bahdanau's equation 5."""
    return matter([[dot(row, column) for column in map(list, zip(*VALUES, strict=True))] for row in weights])


def compute(queries: torch.Tensor, keys: torch.Tensor, backend: str, **arguments: object) -> torch.Tensor:
    return rg.attend(queries[None, None], keys[None, None], matter(VALUES)[None, None], **arguments, backend=backend)[
        0, 0
    ]


def close(found: torch.Tensor, expected: torch.Tensor) -> None:
    torch.testing.assert_close(found, expected, rtol=1e-13, atol=1e-13)


@pytest.mark.parametrize("backend", BACKENDS)
def test_bahdanau(backend: str) -> None:
    """1409.0473, A.1.2: e = v^T tanh(W s + U h); its softmax is equation 6, the sum with it equation 5."""
    weights = []
    for s in QUERIES:
        energies = []
        for h in KEYS:
            hidden = [math.tanh(a + b) for a, b in zip(times(MATRIX, s), times(OTHER, h), strict=True)]
            energies.append(dot(VECTOR, hidden))
        weights.append(softmax(energies))
    projected, answered = matter(QUERIES) @ matter(MATRIX).T, matter(KEYS) @ matter(OTHER).T
    score = rg.Additive(torch.tensor(VECTOR, dtype=torch.float64))
    close(compute(projected, answered, backend, score=score), mixed(weights))


@pytest.mark.parametrize("backend", BACKENDS)
def test_luong_dot(backend: str) -> None:
    """1508.04025, section 3.1, "dot": h_t^T h_s."""
    weights = [softmax([dot(q, k) for k in KEYS]) for q in QUERIES]
    close(compute(matter(QUERIES), matter(KEYS), backend, score=rg.Dot(scale=1.0)), mixed(weights))


@pytest.mark.parametrize("backend", BACKENDS)
def test_luong_general(backend: str) -> None:
    """Section 3.1, "general": h_t^T W_a h_s."""
    weights = [softmax([dot(q, times(MATRIX, k)) for k in KEYS]) for q in QUERIES]
    close(compute(matter(QUERIES), matter(KEYS), backend, score=rg.Bilinear(matter(MATRIX))), mixed(weights))


@pytest.mark.parametrize("backend", BACKENDS)
def test_luong_concat(backend: str) -> None:
    """Section 3.1, "concat": v^T tanh(W_a [h_t; h_s]), where W_a = [MATRIX, OTHER]."""
    whole = [left + right for left, right in zip(MATRIX, OTHER, strict=True)]
    weights = [softmax([dot(VECTOR, [math.tanh(x) for x in times(whole, q + k)]) for k in KEYS]) for q in QUERIES]
    projected, answered = matter(QUERIES) @ matter(MATRIX).T, matter(KEYS) @ matter(OTHER).T
    score = rg.Additive(torch.tensor(VECTOR, dtype=torch.float64))
    close(compute(projected, answered, backend, score=score), mixed(weights))


@pytest.mark.parametrize("backend", BACKENDS)
def test_luong_location(backend: str) -> None:
    """Equation 8: a_t = softmax(W_a h_t)."""
    weights = [softmax(times(ROWS, q)) for q in QUERIES]
    close(compute(matter(QUERIES), matter(KEYS), backend, score=rg.Location(matter(ROWS))), mixed(weights))


@pytest.mark.parametrize("backend", BACKENDS)
def test_luong_local_monotonic(backend: str) -> None:
    """Section 3.2: p_t = t, softmax over the keys in [p_t - D, p_t + D]; here D = 1."""
    weights = []
    for t, q in enumerate(QUERIES):
        inside = [s for s in range(4) if t - 1 <= s <= t + 1]
        row = dict(zip(inside, softmax([dot(q, KEYS[s]) for s in inside]), strict=True))
        weights.append([row.get(s, 0.0) for s in range(4)])
    pattern = rg.Around(torch.arange(3), left=1, right=1)
    close(compute(matter(QUERIES), matter(KEYS), backend, score=rg.Dot(scale=1.0), pattern=pattern), mixed(weights))


@pytest.mark.parametrize("backend", BACKENDS)
def test_luong_local_predictive(backend: str) -> None:
    """Equations 9, p_t = S sigmoid(v_p^T tanh(W_p h_t)), and 10, a_t(s) = align(s) exp(-(s - p_t)^2 / 2 sigma^2).

    With sigma = D / 2 and keys in [p_t - D, p_t + D]; here D = 2, S = 4.
    """
    weights, centers = [], []
    for q in QUERIES:
        center = 4 / (1 + math.exp(-dot(VECTOR, [math.tanh(x) for x in times(MATRIX, q)])))
        inside = [s for s in range(4) if center - 2 <= s <= center + 2]
        align = softmax([dot(q, KEYS[s]) for s in inside])
        row = {s: a * math.exp(-((s - center) ** 2) / (2 * 1.0**2)) for s, a in zip(inside, align, strict=True)}
        weights.append([row.get(s, 0.0) for s in range(4)])
        centers.append(center)
    center = 4 * torch.sigmoid(
        torch.tanh(matter(QUERIES) @ matter(MATRIX).T) @ torch.tensor(VECTOR, dtype=torch.float64)
    )
    close(center, torch.tensor(centers, dtype=torch.float64))
    arguments = {
        "score": rg.Dot(scale=1.0),
        "pattern": rg.Around(center, left=2, right=2),
        "normalizer": rg.Softmax(prior=rg.Gaussian(center, sigma=1.0)),
    }
    close(compute(matter(QUERIES), matter(KEYS), backend, **arguments), mixed(weights))


@pytest.mark.parametrize("backend", [*BACKENDS, "sdpa"])
def test_scaled_dot_product(backend: str) -> None:
    """Vaswani et al. 2017, equation 1."""
    weights = [softmax([dot(q, k) / math.sqrt(2) for k in KEYS]) for q in QUERIES]
    close(compute(matter(QUERIES), matter(KEYS), backend), mixed(weights))


@pytest.mark.parametrize("backend", BACKENDS)
def test_cosine(backend: str) -> None:
    """Henry et al. 2020, equation 4: g * cos(q, k)."""
    weights = [softmax([3.5 * dot(q, k) / math.sqrt(dot(q, q) * dot(k, k)) for k in KEYS]) for q in QUERIES]
    close(compute(matter(QUERIES), matter(KEYS), backend, score=rg.Cosine(3.5)), mixed(weights))


@pytest.mark.parametrize("backend", BACKENDS)
def test_softcap_and_sigmoid(backend: str) -> None:
    """Gemma 2's cap, 1.5 tanh(s / 1.5), under Ramapuram's sigmoid with its bias -log S."""
    bias = -math.log(4)
    weights = [
        [1 / (1 + math.exp(-(1.5 * math.tanh(dot(q, k) / math.sqrt(2) / 1.5) + bias))) for k in KEYS] for q in QUERIES
    ]
    arguments = {"score": rg.Dot(softcap=1.5), "normalizer": rg.Sigmoid(bias)}
    close(compute(matter(QUERIES), matter(KEYS), backend, **arguments), mixed(weights))
