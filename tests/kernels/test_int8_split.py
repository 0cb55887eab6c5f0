"""Ozaki-style int8-split products of float32, where the processor has int8 tiles."""

import pytest
import torch
from torch import Tensor, nn

import regard as rg
from regard import kernels
from regard.attention.patterns.pattern import Pattern
from regard.layers.linear import MIN_SPLIT_ROWS, has_int8_split, int8_split, int8_split_linear, linear

pytestmark = pytest.mark.skipif(not has_int8_split(), reason="this processor has no tiles of int8")

EPS = torch.finfo(torch.float32).eps
OTHER = "avx512"  # without int8 tiles
FULL = rg.Full()


def split_linear(x: Tensor, weight: Tensor, bias: Tensor | None = None, *, packed: bool = True) -> Tensor:
    found = int8_split_linear(x, int8_split(weight) if packed else None, weight, bias)
    assert found is not None
    return found


@pytest.mark.parametrize("packed", [True, False], ids=["packed", "split in the call"])
@pytest.mark.parametrize(
    ("rows", "inputs", "outputs"),
    [(1, 1, 1), (15, 63, 17), (16, 64, 16), (33, 65, 100), (129, 256, 64), (300, 257, 65), (257, 700, 1000)],
)
def test_sizes(rows: int, inputs: int, outputs: int, packed: bool) -> None:
    """At no more than twice PyTorch's error and a rounding, on one thread and two alike; and each row as if alone."""
    torch.manual_seed(inputs)
    weight, bias = torch.randn(outputs, inputs + 3)[:, 1:-2], torch.randn(outputs)  # rows with something between them
    x = torch.randn(rows, inputs + 2)[:, 2:]
    exact = nn.functional.linear(x.double(), weight.double(), bias.double())
    plain = (nn.functional.linear(x, weight, bias) - exact).abs().max()
    found = split_linear(x, weight, bias, packed=packed)
    assert (found - exact).abs().max() <= 2 * plain + 4 * EPS * exact.abs().max()
    assert torch.equal(split_linear(x[-1:], weight, bias, packed=packed)[0], found[-1])
    threads = torch.get_num_threads()
    torch.set_num_threads(3 - min(threads, 2))
    try:
        assert torch.equal(split_linear(x, weight, bias, packed=packed), found)
    finally:
        torch.set_num_threads(threads)


def test_many_outputs_are_made_in_parts() -> None:
    torch.manual_seed(0)
    x, weight = torch.randn(20, 3000), torch.randn(2100, 3000)  # 18 MB of slices
    assert torch.equal(split_linear(x, weight, packed=False), split_linear(x, weight))


@pytest.mark.parametrize("size", [1e-35, 1e-20, 1e20, 1e35])
def test_numbers_of_any_size(size: float) -> None:
    torch.manual_seed(0)
    x, weight = torch.randn(40, 64) * size, torch.randn(30, 64) / size
    exact = x.double() @ weight.double().T
    with torch.no_grad():
        found = linear(x.expand(7, -1, -1), weight)
    assert (found - exact).abs().max() <= 1e-6 * exact.abs().max()
    assert (int8_split(weight) is None) == (size == 1e35)


def test_a_large_number_is_felt_by_its_own_row_and_features_only() -> None:
    torch.manual_seed(0)
    x, weight = torch.randn(32, 512), torch.randn(48, 512)
    before = split_linear(x, weight)
    x[3, 5] = 1e6
    after = split_linear(x, weight)
    others = torch.arange(32) != 3
    assert torch.equal(after[others], before[others])
    part = x[3, 256:].double() @ weight[:, 256:].double().T  # of features in another group
    rest = x[3, :256].double() @ weight[:, :256].double().T
    assert ((after[3] - part - rest).abs() <= 4 * EPS * 1e6 * weight.abs().max()).all()


@pytest.mark.parametrize("value", [float("inf"), -float("inf"), float("nan")])
def test_what_is_not_finite(value: float) -> None:
    torch.manual_seed(0)
    x, weight, bias = torch.randn(300, 70), torch.randn(50, 70), torch.randn(50)
    before = split_linear(x, weight, bias)
    x[20, 7] = value
    plain, found = nn.functional.linear(x, weight, bias), split_linear(x, weight, bias)
    assert torch.equal(found[20].isnan(), plain[20].isnan())
    assert torch.equal(found[20].isposinf(), plain[20].isposinf())
    assert torch.equal(found[:16], before[:16])
    torch.testing.assert_close(found[21:], before[21:], rtol=0, atol=1e-4)  # neighbors may be added up by the number
    weight[3, 2] = value
    plain, sound = nn.functional.linear(x, weight, bias), torch.arange(50) != 3
    with torch.no_grad():
        fast = rg.accelerate(nn.Linear(70, 50))
        fast.weight.copy_(weight), fast.bias.copy_(bias)
        for found in (
            split_linear(x, weight, bias),
            split_linear(x, weight, bias, packed=False),
            linear(x, weight, bias),
            fast(x),
        ):
            assert torch.equal(found.isnan(), plain.isnan())
            assert torch.equal(found.isposinf(), plain.isposinf())
            assert torch.equal(found.isneginf(), plain.isneginf())
            rows = torch.arange(300) != 20
            torch.testing.assert_close(found[rows][:, sound], plain[rows][:, sound], rtol=0, atol=1e-4)
    assert int8_split(torch.full((50, 70), value)) is None  # none of it is multiplied in int8


def test_many_rows_are_split_and_fewer_are_not(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []
    monkeypatch.setattr(
        "regard.layers.linear.int8_split_linear", lambda *x: calls.append(len(x[0])) or int8_split_linear(*x)
    )
    weight = torch.randn(20, 30)
    with torch.no_grad():
        for rows in (MIN_SPLIT_ROWS - 1, MIN_SPLIT_ROWS):
            linear(torch.randn(rows, 30), weight)
    linear(torch.randn(MIN_SPLIT_ROWS, 30), weight.requires_grad_()).sum().backward()
    assert calls == [MIN_SPLIT_ROWS]


def both(*given: Tensor, pattern: Pattern = FULL) -> list[list[Tensor]]:
    """Output and gradients with int8 splits, and without."""
    found = []
    best = kernels.isa()
    for isa in (best, OTHER):
        kernels.module().choose(isa)
        try:
            leaves = [x.clone().requires_grad_() for x in given]
            output = rg.attend(*leaves, pattern=pattern, backend="native")
            output.backward(torch.ones_like(output).cumsum(-1))
            found.append([output.detach(), *(x.grad for x in leaves)])
        finally:
            kernels.module().choose(best)
    return found


@pytest.mark.parametrize("where", [0, 1, 2], ids=["query", "key", "value"])
@pytest.mark.parametrize("value", [float("inf"), float("nan")])
def test_attention_with_numbers_that_cannot_be_split(where: int, value: float) -> None:
    torch.manual_seed(0)
    given = [torch.randn(1, 2, 150, 64) for _ in range(3)]
    given[where][0, 1, 70, 9] = value
    for mine, plain in zip(*both(*given, pattern=rg.Causal()), strict=True):
        assert torch.equal(mine.isnan(), plain.isnan())
        good = plain.isfinite()
        assert torch.equal(mine.isposinf(), plain.isposinf())
        assert (mine - plain)[good].abs().max() <= 1e-4 * plain[good].abs().max()


def test_what_is_not_seen_changes_no_bit() -> None:
    """Neither a later key or value, nor one outside of the window, however large."""
    torch.manual_seed(0)
    q, k, v = (torch.randn(1, 2, 200, 64) for _ in range(3))
    for pattern, seen in ((rg.Causal(), slice(0, 100)), (rg.SlidingWindow(left=20, right=0), slice(121, 200))):
        before = rg.attend(q, k, v, pattern=pattern, backend="native")
        key, value = k.clone(), v.clone()
        key[:, :, 100], value[:, :, 100] = 1e8, -1e8
        after = rg.attend(q, key, value, pattern=pattern, backend="native")
        assert torch.equal(after[:, :, seen], before[:, :, seen])
        assert not torch.equal(after, before)


def test_large_numbers_that_do_not_meet() -> None:
    """Their largest, multiplied by each other, would be infinite."""
    x, weight = torch.zeros(2, 40, 64)
    x[:, 3], x[:, 5] = 1e25, 2
    weight[:, 7], weight[:, 5] = 1e25, 3
    assert split_linear(x, weight).isfinite().all()
    q, k, v = x[None, None], weight[None, None], torch.randn(1, 1, 40, 64)
    assert rg.attend(q, k, v, backend="native").isfinite().all()


def test_what_a_thread_keeps_is_of_one_call() -> None:
    torch.manual_seed(0)
    q, k, v = (torch.randn(2, 4, 130, 64) for _ in range(3))
    k, v = k[:, :2], v[:, :2]
    first = rg.attend(q, k, v, backend="native")
    k.mul_(-1)
    v.add_(1)
    second = rg.attend(q, k, v, backend="native")
    exact = rg.attend(q.double(), k.double(), v.double(), backend="reference")
    assert (second - exact).abs().max() < 5e-6
    assert not torch.equal(first, second)


def test_keys_and_values_whose_numbers_are_no_neighbors() -> None:
    torch.manual_seed(0)
    q = torch.randn(1, 2, 100, 64)
    k, v = (torch.randn(1, 2, 64, 100).mT for _ in range(2))
    for mine, plain in zip(*both(q, k, v), strict=True):
        assert (mine - plain).abs().max() <= 1e-5 * plain.abs().max()
    assert torch.equal(
        rg.attend(q, k, v, backend="native"), rg.attend(q, k.contiguous(), v.contiguous(), backend="native")
    )


def test_more_keys_than_a_thread_keeps() -> None:
    torch.manual_seed(0)
    q, k, v = torch.randn(1, 1, 130, 64), *(torch.randn(1, 1, 520 * 64, 64) for _ in range(2))
    found = rg.attend(q, k, v, backend="native")
    parts = torch.stack([rg.attend(q[:, :, i : i + 1], k, v, backend="native") for i in (0, 129)])
    torch.testing.assert_close(torch.stack([found[:, :, :1], found[:, :, -1:]]), parts, rtol=0, atol=1e-6)
