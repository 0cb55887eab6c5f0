"""The kernels' summaries without gradients agree with the reference's; those with gradients go by tiles."""

import pytest
import torch

import regard as rg
from regard.attention.backends.native.huge_pages import FRESH, PAGE

NORMALIZERS = {
    "softmax": rg.Softmax(),
    "sink": rg.Softmax(sink=torch.tensor([0.5, -1.0, 2.0, 0.0], dtype=torch.float64)),
    "prior": rg.Softmax(prior=rg.Gaussian(center=torch.full((1,), 40.0, dtype=torch.float64), sigma=20.0)),
    "sparsemax": rg.Sparsemax(),
    "entmax": rg.Entmax(1.3),
    "sigmoid": rg.Sigmoid(-2.0),
}
PATTERNS = {
    "full": rg.Full(),
    "window": rg.Causal() & rg.SlidingWindow(left=20),
    "lengths": rg.KeyLengths(torch.tensor([0, 71])),
    "strided": rg.Strided(3) | rg.GlobalTokens([2]),
}


@pytest.mark.parametrize("pattern", PATTERNS)
@pytest.mark.parametrize("normalizer", NORMALIZERS)
@torch.no_grad()
def test_summaries(normalizer: str, pattern: str) -> None:
    torch.manual_seed(3)
    query, key, value = (torch.randn(2, h, n, 7, dtype=torch.float64) for h, n in ((4, 83), (2, 149), (2, 149)))
    kind = NORMALIZERS[normalizer]
    summary = rg.Summary(
        log_sum_exp=isinstance(kind, rg.Softmax),
        entropy=normalizer not in ("prior", "sigmoid"),
        expected_key=True, key_mass=True, top_k=5, grid=(7, 11), weights=True,
    )  # fmt: skip
    arguments = {"normalizer": kind, "pattern": PATTERNS[pattern], "key_start": 3, "summary": summary}
    output, result = rg.attend(query, key, value, **arguments, backend="native")
    expected, truth = rg.attend(query, key, value, **arguments, backend="reference")
    torch.testing.assert_close(output, expected, rtol=1e-10, atol=1e-12)
    for name, x in vars(truth).items():
        if x is None:
            assert getattr(result, name) is None
        elif name != "top_keys":  # equal weights may stand in any order
            torch.testing.assert_close(getattr(result, name), x, rtol=1e-9, atol=1e-10, msg=name)
    some = result.top_weights > 0
    assert torch.equal(some, result.top_keys >= 0)
    at = (result.top_keys - 3).clamp(min=0)
    torch.testing.assert_close(truth.weights.gather(-1, at)[some], result.top_weights[some], rtol=1e-9, atol=1e-12)


def test_half_inputs() -> None:
    query = torch.randn(1, 2, 70, 16).bfloat16()
    with torch.no_grad():
        _, result = rg.attend(query, query, query, summary=rg.Summary(entropy=True, key_mass=True), backend="native")
        _, truth = rg.attend(query, query, query, summary=rg.Summary(entropy=True, key_mass=True), backend="reference")
    torch.testing.assert_close(result.entropy, truth.entropy, rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(result.key_mass, truth.key_mass, rtol=1e-3, atol=1e-3)


def test_a_row_whose_weights_are_all_tiny() -> None:
    """Sigmoid's weights down to 1e-43 in float64: their mean position is a ratio of them."""
    torch.manual_seed(0)
    query, key, value = torch.randn(3, 1, 2, 20, 4, dtype=torch.float64)
    given = {"normalizer": rg.Sigmoid(-95.0), "summary": rg.Summary(expected_key=True, weights=True)}
    expected, found = (rg.attend(query, key, value, **given, backend=name)[1] for name in ("reference", "native"))
    assert 0 < expected.weights.max() < 1e-38
    torch.testing.assert_close(found.expected_key, expected.expected_key, rtol=1e-12, atol=0)
    torch.testing.assert_close(found.weights, expected.weights, rtol=1e-12, atol=0)


@pytest.mark.parametrize("normalizer", ["softmax", "sigmoid", "sparsemax"])
@torch.no_grad()
def test_a_summary_changes_no_bit_and_threads_change_none_of_it(normalizer: str) -> None:
    """Three heads on two threads are computed before they are summed up, on one thread together with it."""
    torch.manual_seed(5)
    inputs = torch.randn(3, 1, 3, 150, 40)
    given = {"normalizer": NORMALIZERS[normalizer], "pattern": PATTERNS["window"], "backend": "native"}
    asked = rg.Summary(entropy=normalizer == "softmax", expected_key=True, grid=(3, 5), top_k=2, weights=True)
    plain, threads = rg.attend(*inputs, **given), torch.get_num_threads()
    found = []
    try:
        for count in (1, 2):
            torch.set_num_threads(count)
            found.append(rg.attend(*inputs, summary=asked, **given))
    finally:
        torch.set_num_threads(threads)
    for output, result in found:
        assert torch.equal(output, plain)
        for name, x in vars(found[0][1]).items():
            assert x is None or torch.equal(x, getattr(result, name)), name


@pytest.mark.parametrize("columns", [65536, 65540])  # whose rows of weights begin with a line of memory, and between
@torch.no_grad()
def test_weights_of_many_bytes(columns: int) -> None:
    """In large pages, written past the caches."""
    torch.manual_seed(6)
    query, key = torch.randn(1, 1, 139, 8), torch.randn(1, 1, columns, 8)
    arguments = {"pattern": rg.SlidingWindow(left=30000, right=20) & ~rg.Dilated(3, left=1000), "query_start": 40000}
    _, expected = rg.attend(query, key, key, **arguments, summary=rg.Summary(weights=True), backend="reference")
    with torch.device("meta"):
        for _ in range(2):
            _, found = rg.attend(query, key, key, **arguments, summary=rg.Summary(weights=True), backend="native")
    assert found.weights.nbytes >= FRESH
    assert found.weights.device.type == "cpu"
    assert found.weights.data_ptr() % PAGE == 0
    assert torch.equal(found.weights == 0, expected.weights == 0)
    torch.testing.assert_close(found.weights, expected.weights, rtol=1e-4, atol=1e-9)


def test_a_large_output_may_be_written_to() -> None:
    value = torch.randn(1, 1, 3, FRESH // 8)
    with torch.no_grad():
        output = rg.attend(torch.randn(1, 1, 2, 8), torch.randn(1, 1, 3, 8), value, backend="native")
    assert output.nbytes >= FRESH
    output += (added := torch.zeros(1, requires_grad=True))  # which autograd refuses for what is a view of something
    assert torch.autograd.grad(output.sum(), added)[0] == output.numel()
