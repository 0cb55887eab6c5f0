"""An accelerated module is what it was: values within float error, the same parameters, the same gradients."""

import copy
import pickle
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrizations, parametrize

import regard as rg
from regard.layers import fast_linear
from regard.layers.fast_linear import FASTER, FastLinear, runs_here
from regard.layers.linear import has_int8_split

ROWS, INPUTS, OUTPUTS = 11, 37, 29
NEEDS_BF16 = pytest.mark.skipif(not runs_here(torch.bfloat16), reason="oneDNN does no bfloat16 here")
DTYPES = [torch.float32, pytest.param(torch.bfloat16, marks=NEEDS_BF16)]


@pytest.fixture(params=["packed", "plain"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Whichever wins the race."""
    yield from force(request.param, monkeypatch)


@pytest.fixture
def packed(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    yield from force("packed", monkeypatch)


def force(way: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    monkeypatch.setattr(fast_linear, "FASTER", {})
    monkeypatch.setattr(fast_linear, "wins", lambda this, that: way == "packed")
    yield way


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[Tensor]:
    """The weights that products on packed ones ran with."""
    found: list[Tensor] = []
    multiply = FastLinear._multiply

    def counted(self: FastLinear, x: Tensor, weight: Tensor, dtype: torch.dtype) -> Tensor:
        found.append(weight)
        return multiply(self, x, weight, dtype)

    monkeypatch.setattr(FastLinear, "_multiply", counted)
    return found


def linear(dtype: torch.dtype = torch.float32, *, bias: bool = True) -> nn.Linear:
    torch.manual_seed(0)
    return nn.Linear(INPUTS, OUTPUTS, bias, dtype=dtype)


def exact(map: nn.Linear, x: Tensor) -> Tensor:
    bias = None if map.bias is None else map.bias.detach().double()
    return nn.functional.linear(x.detach().double(), map.weight.detach().double(), bias)


def close(found: Tensor, map: nn.Linear, x: Tensor) -> bool:
    """Within the bound of any order of summation, INPUTS + 1 terms, and one rounding to the type of the result."""
    terms = copy.deepcopy(map).double()
    with torch.no_grad():
        for parameter in terms.parameters():
            parameter.abs_()
    eps = (INPUTS + 1) * torch.finfo(torch.float32).eps + torch.finfo(found.dtype).eps
    return bool(((found.double() - exact(map, x)).abs() <= eps * exact(terms, x.abs())).all())


INPUT: dict[str, Callable[[], Tensor]] = {
    "vector": lambda: torch.randn(INPUTS),
    "one row": lambda: torch.randn(1, INPUTS),
    "rows": lambda: torch.randn(ROWS, INPUTS),
    "3-D": lambda: torch.randn(2, ROWS, INPUTS),
    "4-D": lambda: torch.randn(2, 3, 5, INPUTS),
    "transposed": lambda: torch.randn(2, 5, 3, INPUTS).transpose(1, 2),
    "columns": lambda: torch.randn(INPUTS, ROWS).t(),
    "every second": lambda: torch.randn(ROWS, 2 * INPUTS)[:, ::2],
    "expanded": lambda: torch.randn(1, INPUTS).expand(ROWS, INPUTS),
    "a part, unaligned": lambda: torch.randn(ROWS * INPUTS + 1)[1:].view(ROWS, INPUTS),
    "no rows": lambda: torch.randn(0, INPUTS),
    "no rows, 3-D": lambda: torch.randn(2, 0, INPUTS),
}


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", INPUT)
def test_values(name: str, dtype: torch.dtype, bias: bool, packed: str, calls: list[Tensor]) -> None:
    map, x = linear(dtype, bias=bias), INPUT[name]().to(dtype)
    expected = map(x)
    with torch.inference_mode():
        found = rg.accelerate(map)(x)
    assert found.shape == expected.shape
    assert found.dtype == dtype
    assert close(found, map, x)
    assert bool(calls) == (x.numel() > 0)


def test_the_race_is_run_once_for_a_shape(monkeypatch: pytest.MonkeyPatch) -> None:
    raced = []
    monkeypatch.setattr(fast_linear, "FASTER", {})
    monkeypatch.setattr(fast_linear, "wins", lambda this, that: raced.append(torch.equal(this(), this())) or True)
    map, same = rg.accelerate(linear()), rg.accelerate(linear())
    with torch.no_grad():
        for rows in (9, 16, 11):
            map(torch.randn(rows, INPUTS))
            same(torch.randn(rows, INPUTS))
        assert raced == [True]
        map(torch.randn(17, INPUTS))
    assert raced == [True, True]
    assert [shape.rows for shape in fast_linear.FASTER] == [16, 32]


def test_a_race_of_its_own() -> None:
    map = rg.accelerate(linear())
    with torch.inference_mode():
        x = torch.randn(ROWS, INPUTS)
        assert close(map(x), map, x)
    assert any(shape[:3] == (16, INPUTS, OUTPUTS) for shape in FASTER)
    assert not fast_linear.wins(lambda: sum(torch.ones(9) for _ in range(999)), lambda: torch.ones(1))


def test_the_loser_keeps_no_second_weight(monkeypatch: pytest.MonkeyPatch) -> None:
    for _ in force("plain", monkeypatch):
        map = rg.accelerate(linear())
        with torch.no_grad():
            map(torch.randn(ROWS, INPUTS))
        assert map._packs == {}


def test_parameters_and_names_are_the_same_objects(packed: str) -> None:
    model = nn.Sequential(nn.Embedding(INPUTS, OUTPUTS), linear(), nn.Sequential(linear(bias=False)))
    parts, parameters = list(model.modules()), dict(model.named_parameters())
    before = {name: x.clone() for name, x in model.state_dict().items()}
    assert rg.accelerate(model) is model
    with torch.no_grad():
        model[1](torch.randn(ROWS, INPUTS))
    assert all(x is y for x, y in zip(model.modules(), parts, strict=True))
    assert all(parameters[name] is x for name, x in model.named_parameters())
    after = model.state_dict()
    assert list(after) == list(before)
    assert all(torch.equal(after[name], x) for name, x in before.items())
    assert isinstance(model[1], nn.Linear)
    rg.restore(model)
    assert [type(part) for part in (model[1], model[2][0])] == [nn.Linear] * 2
    assert vars(model[1]).keys() == vars(linear()).keys()
    assert rg.restore(model) is model


CHANGES: dict[str, Callable[[nn.Linear], object]] = {
    "in place": lambda map: map.weight.mul_(2),
    "an entry": lambda map: map.weight[3, 5].fill_(7),
    "detached": lambda map: map.weight.detach().add_(1),
    "loaded": lambda map: map.load_state_dict(nn.Linear(INPUTS, OUTPUTS).state_dict()),
    "assigned": lambda map: map.load_state_dict(nn.Linear(INPUTS, OUTPUTS).state_dict(), assign=True),
    "a new parameter": lambda map: setattr(map, "weight", nn.Parameter(torch.randn(OUTPUTS, INPUTS))),
    "new data": lambda map: setattr(map.weight, "data", torch.randn(OUTPUTS, INPUTS)),
    "a transposed one": lambda map: setattr(map.weight, "data", torch.randn(INPUTS, OUTPUTS).t()),
    "rounded": lambda map: map.bfloat16().float(),
    "bias": lambda map: map.bias.add_(3),
    "no bias": lambda map: setattr(map, "bias", None),
    "initialized": lambda map: nn.init.xavier_uniform_(map.weight),
}


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
@pytest.mark.parametrize("name", CHANGES)
def test_the_result_follows_the_weight(
    name: str, mode: Callable[[], AbstractContextManager[None]], packed: str, calls: list[Tensor]
) -> None:
    map, x = rg.accelerate(linear()), torch.randn(ROWS, INPUTS)
    with mode():
        first = map(x)
        CHANGES[name](map)
        found = map(x)
    assert len(calls) == (1 if map.weight.is_inference() else 2)  # weights made in inference mode have no version
    assert not torch.allclose(found, first)
    assert close(found, map, x)


def test_the_same_weight_is_packed_once(packed: str, calls: list[Tensor]) -> None:
    map = rg.accelerate(linear())
    with torch.no_grad():
        for rows in (1, ROWS, 100):
            map(torch.randn(rows, INPUTS))
    assert calls[0] is calls[1] is calls[2]


def test_a_write_that_torch_does_not_count_is_seen_after_a_forward_with_gradients(packed: str) -> None:
    map, x = rg.accelerate(linear()), torch.randn(ROWS, INPUTS)
    with torch.no_grad():
        map(x)
    map(x).sum().backward()
    map.weight.data.sub_(map.weight.grad)
    with torch.no_grad():
        assert close(map(x), map, x)


def test_the_same_gradients(way: str, calls: list[Tensor]) -> None:
    x = torch.randn(2, ROWS, INPUTS, requires_grad=True)
    map = linear()
    parameters = [x, map.weight, map.bias]
    expected = torch.autograd.grad(map(x).sin().sum(), parameters)
    rg.accelerate(map)
    found = torch.autograd.grad(map(x).sin().sum(), parameters)
    assert all(torch.equal(a, b) for a, b in zip(found, expected, strict=True))
    map.requires_grad_(False)
    [through] = torch.autograd.grad(map(x).sin().sum(), [x])
    assert torch.equal(through, expected[0])
    assert calls == []


def test_frozen_weights_need_no_mode(packed: str, calls: list[Tensor]) -> None:
    map, x = rg.accelerate(linear()).requires_grad_(False), torch.randn(ROWS, INPUTS)
    assert close(map(x), map, x)
    assert len(calls) == 1


def test_training_reaches_the_same_weights(packed: str) -> None:
    results = []
    for fast in (False, True):
        torch.manual_seed(1)
        model = nn.Sequential(nn.Linear(INPUTS, 8), nn.GELU(), nn.Linear(8, 3))
        if fast:
            rg.accelerate(model)
        optimizer = torch.optim.Adam(model.parameters(), lr=0.1)
        for _ in range(3):
            x = torch.randn(ROWS, INPUTS)
            optimizer.zero_grad()
            model(x).square().mean().backward()
            optimizer.step()
            with torch.no_grad():
                model(x)
        results.append(model.state_dict())
    assert all(torch.equal(x, results[1][name]) for name, x in results[0].items())


@NEEDS_BF16
def test_autocast(way: str, calls: list[Tensor]) -> None:
    map, x = linear(), torch.randn(ROWS, INPUTS)
    double = linear().double()
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        expected = map(x)
        found = rg.accelerate(map)(x)
        assert expected.dtype == found.dtype == torch.bfloat16
        assert close(found, copy.deepcopy(map).bfloat16(), x.bfloat16())
        assert rg.accelerate(double)(x.double()).dtype == double(x.double()).dtype
        with torch.autocast("cpu", enabled=False):
            assert map(x).dtype == torch.float32
    with torch.no_grad():
        assert close(map(x), map, x)
    single = torch.uint8 if has_int8_split() else torch.float32  # of the packed weight
    assert {x.dtype for x in calls} == ({torch.bfloat16, single} if way == "packed" else set())


@NEEDS_BF16
def test_products_in_bfloat16_of_a_model_in_float32(calls: list[Tensor]) -> None:
    map, x = rg.accelerate(linear(), dtype=torch.bfloat16), torch.randn(ROWS, INPUTS)
    with torch.no_grad():
        found = map(x)
        assert found.dtype == torch.float32
        assert close(found.bfloat16(), copy.deepcopy(map).bfloat16(), x.bfloat16())
        assert len(calls) == 1
        assert torch.equal(map(x.requires_grad_()), found)
        assert not rg.accelerate(map)(x).equal(found)
    assert torch.equal(map(x), linear()(x))


def test_other_types_take_the_plain_way(packed: str, calls: list[Tensor]) -> None:
    with torch.no_grad():
        for dtype in (torch.float64, torch.float16):
            map, x = linear(dtype), torch.randn(ROWS, INPUTS, dtype=dtype)
            assert torch.equal(map(x), rg.accelerate(map)(x))
        with torch.device("meta"):
            assert rg.accelerate(nn.Linear(3, 5))(torch.empty(2, 3)).shape == (2, 5)
        for wrong in (torch.randn(2, INPUTS + 1), torch.randn(2, INPUTS).double()):
            with pytest.raises(RuntimeError):
                rg.accelerate(linear())(wrong)
    assert calls == []


def test_weights_made_in_inference_mode(packed: str, calls: list[Tensor]) -> None:
    with torch.inference_mode():
        map, x = rg.accelerate(linear()), torch.randn(ROWS, INPUTS)
        map(x)
        map.weight.mul_(2)
        assert close(map(x), map, x)
    assert calls == []


def test_what_is_not_plainly_a_linear_map_is_left_alone() -> None:
    class Other(nn.Linear):
        pass

    hooked, pre, spectral, patched = linear(), linear(), parametrizations.weight_norm(linear()), linear()
    hooked.register_forward_hook(lambda *_: None)
    pre.register_forward_pre_hook(lambda *_: None)
    patched.forward = lambda x: x
    parts = [Other(3, 5), hooked, pre, spectral, patched, nn.MultiheadAttention(4, 2), nn.Bilinear(2, 3, 4)]
    model = nn.ModuleList(parts)
    types = [type(part) for part in model.modules()]
    assert [type(part) for part in rg.accelerate(model).modules()] == types


def test_hooks_and_parametrizations_that_come_later(packed: str) -> None:
    map, x, seen = rg.accelerate(linear()), torch.randn(ROWS, INPUTS), []
    map.register_forward_hook(lambda module, given, found: seen.append(found))
    with torch.no_grad():
        assert torch.equal(map(x), seen[0])

        class Doubled(nn.Module):
            def forward(self, weight: Tensor) -> Tensor:
                return 2 * weight

        before = map(x) - map.bias
        parametrize.register_parametrization(map, "weight", Doubled())
        assert torch.allclose(map(x) - map.bias, 2 * before, atol=1e-5)


def test_tied_weights(packed: str) -> None:
    model = nn.ModuleDict({"embedding": nn.Embedding(OUTPUTS, INPUTS), "head": linear()})
    model["head"].weight = model["embedding"].weight
    rg.accelerate(model)
    x = torch.randn(ROWS, INPUTS)
    with torch.no_grad():
        model["head"](x)
        model["embedding"].weight.mul_(3)
        assert close(model["head"](x), model["head"], x)
    assert model["head"].weight is model["embedding"].weight


@pytest.mark.parametrize("copied", [copy.deepcopy, copy.copy, lambda map: pickle.loads(pickle.dumps(map))])
def test_copies(copied: Callable[[nn.Linear], nn.Linear], packed: str, calls: list[Tensor]) -> None:
    map, x = rg.accelerate(linear()), torch.randn(ROWS, INPUTS)
    with torch.no_grad():
        expected = map(x)
        other = copied(map)
        assert type(other) is FastLinear
        assert torch.equal(other(x), expected)
        if other.weight is not map.weight:
            other.weight.mul_(2)
            assert torch.equal(map(x), expected)
            assert close(other(x), other, x)
    assert len(calls) >= 2


def test_compiled_exported_and_transformed(packed: str, calls: list[Tensor]) -> None:
    model, x = rg.accelerate(nn.Sequential(linear(), nn.ReLU())), torch.randn(ROWS, INPUTS)
    expected = rg.restore(copy.deepcopy(model))(x)
    with torch.no_grad():
        torch.compiler.reset()
        assert torch.allclose(torch.compile(model, fullgraph=True, backend="aot_eager")(x), expected, atol=1e-5)
        assert torch.allclose(torch.export.export(model, (x,)).module()(x), expected, atol=1e-5)
        assert torch.allclose(torch.jit.trace(model, x, check_trace=False)(x), expected, atol=1e-5)
        assert torch.allclose(torch.fx.symbolic_trace(model)(x), expected, atol=1e-5)
        assert torch.allclose(torch.func.vmap(model)(x), expected, atol=1e-5)
        _, tangent = torch.func.jvp(model, (x,), (x,))
        assert tangent.shape == expected.shape
        doubled = {name: 2 * value for name, value in model.state_dict().items()}
        assert torch.allclose(torch.func.functional_call(model, doubled, (x,)), 2 * expected, atol=1e-5)
        with torch.autograd.forward_ad.dual_level():
            dual = torch.autograd.forward_ad.make_dual(x, x)
            assert torch.autograd.forward_ad.unpack_dual(model(dual)).tangent is not None
    assert calls == []


def test_a_sentence_gets_the_same_scores_alone_and_in_a_batch(packed: str) -> None:
    torch.manual_seed(0)
    model = rg.accelerate(
        rg.Transformer(rg.TransformerConfig.from_preset("tiny", rg.Vocabulary(size=97, pad=0, bos=1, eos=2)))
    ).eval()
    sources = torch.randint(3, 97, (7, 13))
    together = rg.generate(model, sources.tolist(), search=rg.Beam(4), max_length=9)
    for source, found in zip(sources.tolist(), together, strict=True):
        [alone] = rg.generate(model, [source], search=rg.Beam(4), max_length=9)
        assert [h.tokens for h in alone] == [h.tokens for h in found]
        assert all(abs(a.score - b.score) < 1e-5 for a, b in zip(alone, found, strict=True))
