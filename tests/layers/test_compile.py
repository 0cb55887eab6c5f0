"""Compiled and exported, a model with the layer is what it is in eager mode."""

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.fx.experimental.proxy_tensor import make_fx
from torch.utils.flop_counter import FlopCounterMode

import regard as rg
from regard import kernels

BATCH, LENGTH, EMBED_DIM, HEADS = 3, 11, 12, 3
NATIVE = [] if kernels.missing() else ["native"]
BACKENDS = ["reference", "chunked", "sdpa", "auto", *NATIVE]
CAUSAL = rg.Causal()
LAYERS = {
    "plain": {},
    "causal": {"pattern": CAUSAL, "positions": rg.Rotary(4)},
    "window": {"pattern": CAUSAL & rg.SlidingWindow(left=3), "num_kv_heads": 1, "query_key_norm": True},
    "dilated": {"pattern": rg.Dilated(dilation=2, left=2, right=1), "position_bias": rg.LearnedRelativeBias(8)},
    "alibi": {"pattern": CAUSAL | rg.GlobalTokens([0]), "position_bias": rg.ALiBiSlopes()},
}
ONLY_COMPOSITE = {
    "cosine": {"score": rg.LearnedCosine(), "pattern": CAUSAL},
    "additive": {"score": rg.LearnedAdditive(), "normalizer": rg.LearnedSink()},
    "entmax": {"normalizer": rg.LearnedEntmax(), "pattern": CAUSAL},
    "sigmoid": {"normalizer": rg.LearnedSigmoid(-2.0)},
    "sparsemax": {"normalizer": rg.Sparsemax()},
}
PAIRS = [(name, backend) for name in LAYERS for backend in BACKENDS]
PAIRS += [(name, backend) for name in ONLY_COMPOSITE for backend in ("reference", "chunked", *NATIVE)]
QUICK = [(name, backend) for name in ("causal", "window") for backend in BACKENDS]
QUICK += [("entmax", "chunked"), *(("entmax", backend) for backend in NATIVE)]
CASES = [pytest.param(*pair, marks=() if pair in QUICK else pytest.mark.slow) for pair in PAIRS]


class Model(nn.Module):
    """A small model whose padding is known only when it runs."""

    def __init__(self, name: str, backend: str) -> None:
        super().__init__()
        self.positions = rg.SinusoidalPositions(EMBED_DIM)
        self.attention = rg.MultiHeadAttention(EMBED_DIM, HEADS, backend=backend, **{**LAYERS, **ONLY_COMPOSITE}[name])
        self.out = nn.Linear(EMBED_DIM, 2)

    def forward(self, x: Tensor, lengths: Tensor) -> Tensor:
        x = self.positions(x)
        return self.out(x + self.attention(x, pattern=rg.KeyLengths(lengths)))


@pytest.fixture(autouse=True)
def forget_compiled_code() -> None:
    torch.compiler.reset()
    torch.manual_seed(0)


def inputs(length: int = LENGTH) -> tuple[Tensor, Tensor]:
    return torch.randn(BATCH, length, EMBED_DIM), torch.tensor([length, 1, length // 2])


def output_and_gradients(model: nn.Module, x: Tensor, lengths: Tensor) -> list[Tensor]:
    x = x.clone().requires_grad_()
    output = model(x, lengths)
    return [output.detach(), *torch.autograd.grad(output.square().sum(), [x, *model.parameters()])]


def assert_same(found: list[Tensor], expected: list[Tensor]) -> None:
    for x, y in zip(found, expected, strict=True):
        torch.testing.assert_close(x, y, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(("name", "backend"), CASES)
def test_compiled_is_eager(name: str, backend: str) -> None:
    model = Model(name, backend)
    compiled = torch.compile(model, fullgraph=True, backend="aot_eager")
    for _ in range(2):  # other lengths of padding run the same code
        x, lengths = inputs()
        assert_same(output_and_gradients(compiled, x, lengths.roll(1)), output_and_gradients(model, x, lengths.roll(1)))


@pytest.mark.parametrize("backend", BACKENDS)
def test_compiled_for_any_length_is_eager(backend: str) -> None:
    model = Model("window", backend)
    compiled = torch.compile(model, fullgraph=True, dynamic=True, backend="aot_eager")
    with torch.no_grad():
        for length in (LENGTH, 17):
            given = inputs(length)
            torch.testing.assert_close(compiled(*given), model(*given), rtol=1e-5, atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize(("name", "backend"), PAIRS)
def test_compiled_for_any_length_trains_as_eager(name: str, backend: str) -> None:
    model = Model(name, backend)
    compiled = torch.compile(model, fullgraph=True, dynamic=True, backend="aot_eager")
    for length in (LENGTH, 17):
        given = inputs(length)
        assert_same(output_and_gradients(compiled, *given), output_and_gradients(model, *given))


@pytest.mark.parametrize("backend", BACKENDS)
def test_generated_code_is_eager(backend: str) -> None:
    model, given = Model("causal", backend), inputs()
    compiled = torch.compile(model, fullgraph=True, backend="inductor")
    assert_same(output_and_gradients(compiled, *given), output_and_gradients(model, *given))


@pytest.mark.parametrize("strict", [True, False], ids=["strict", "loose"])
@pytest.mark.parametrize(("name", "backend"), CASES)
def test_exported_is_eager(name: str, backend: str, strict: bool) -> None:
    model = Model(name, backend).eval()
    program = torch.export.export(model, inputs(), strict=strict).module()
    given = inputs()
    torch.testing.assert_close(program(*given), model(*given), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("backend", BACKENDS)
def test_exported_for_any_length_is_eager(backend: str) -> None:
    model = Model("window", backend).eval()
    length = torch.export.Dim("length", min=2, max=1024)
    program = torch.export.export(model, inputs(), dynamic_shapes=({1: length}, None)).module()
    given = inputs(19)
    torch.testing.assert_close(program(*given), model(*given), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("backend", ["reference", "chunked", *NATIVE])
def test_compiled_dropout_drops_the_same(backend: str) -> None:
    """The seed travels as a tensor."""
    layer = rg.MultiHeadAttention(EMBED_DIM, HEADS, dropout=0.4, pattern=CAUSAL, backend=backend)
    compiled = torch.compile(layer, fullgraph=True, backend="aot_eager")
    x = inputs()[0]
    for seed in (torch.tensor(5), torch.tensor(2**40 + 1)):
        torch.testing.assert_close(compiled(x, seed=seed), layer(x, seed=seed), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(("name", "backend"), [pair for pair in PAIRS if pair[1] in NATIVE])
def test_recorded_is_eager(name: str, backend: str) -> None:
    """A mode sees operations only, of which a kernel's work is none by itself."""
    attention = Model(name, backend).attention.eval()
    for _ in range(2):  # once the call is remembered, too
        recorded, other = make_fx(attention)(inputs()[0]), inputs()[0]
        torch.testing.assert_close(recorded(other), attention(other), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("backend", NATIVE)
def test_derivatives_in_a_mode_are_eager_ones(backend: str) -> None:
    """Of `torch.func`, forward mode, and second ones: which one operation of a graph has no rules for."""
    query, key, value = torch.randn(3, 1, 2, 9, 4, dtype=torch.float64)

    def total(query: Tensor) -> Tensor:
        return rg.attend(query, key, value, pattern=CAUSAL, backend=backend).square().sum()

    def second(query: Tensor) -> Tensor:
        query = query.clone().requires_grad_()
        (gradient,) = torch.autograd.grad(total(query), query, create_graph=True)
        return torch.autograd.grad(gradient.square().sum(), query)[0]

    gradient, expected = torch.func.grad(total)(query), second(query)
    torch.testing.assert_close(make_fx(torch.func.grad(total))(query)(query), gradient)
    with FlopCounterMode(display=False):
        torch.testing.assert_close(torch.func.grad(total)(query), gradient)
        torch.testing.assert_close(torch.func.jvp(total, (query,), (torch.ones_like(query),))[1], gradient.sum())
        torch.testing.assert_close(second(query), expected)


@pytest.mark.parametrize("backend", NATIVE)
def test_what_has_no_numbers_has_a_size(backend: str) -> None:
    with FakeTensorMode():
        query = torch.randn(1, 2, 9, 4)
        assert rg.attend(query, query, query, backend=backend).shape == query.shape
    assert rg.attend(query, query, query, backend=backend).shape == query.shape  # outside of the mode, too


@pytest.mark.parametrize("backend", NATIVE)
def test_numbers_of_numpy_are_recorded(backend: str) -> None:
    query = torch.randn(1, 2, 9, 4)
    values = {"pattern": rg.SlidingWindow(left=np.int64(2)), "score": rg.Dot(scale=np.float32(0.5))}
    expected = rg.attend(query, query, query, **values, backend=backend)
    with FlopCounterMode(display=False):
        torch.testing.assert_close(rg.attend(query, query, query, **values, backend=backend), expected)
