"""`torch.func` over `attend`: each transform gives what it gives of the dense formula, or one error says why not."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.func import (
    functional_call,
    functionalize,
    grad,
    hessian,
    jacfwd,
    jacrev,
    jvp,
    linearize,
    stack_module_state,
    vjp,
    vmap,
)

import regard as rg
from regard import kernels
from regard.errors import UnsupportedError

pytestmark = pytest.mark.filterwarnings(  # what PyTorch says of itself, in torch.func.linearize and of its own kernels
    "ignore:Attempted to insert a get_attr Node", "ignore:There is a performance drop"
)

N, B, H, L, E = 5, 1, 2, 7, 3
TILES = ["chunked", *([] if kernels.missing() else ["native"])]
BACKENDS = ["auto", *TILES]
X = torch.randn(N, B, H, L, E, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
LENGTHS = torch.tensor([1, 2, 3, 6, 7])
HIDE = torch.rand(N, L, L, generator=torch.Generator().manual_seed(1)) > 0.4  # with rows that see nothing
CENTER = torch.linspace(-1.0, L, N * H * L, dtype=torch.float64).reshape(N, H, L)
Attention = Callable[[Tensor], Tensor]


def attention(backend: str, **arguments: Any) -> Attention:
    return lambda x: rg.attend(x, x, x, backend=backend, **arguments)


def scalar(f: Attention) -> Attention:
    return lambda x: f(x).sin().sum()


ARGUMENTS: dict[str, dict[str, Any]] = {
    "plain": {},
    "causal": {"pattern": rg.Causal()},
    "dilated": {"pattern": rg.Dilated(2, left=1, right=1)},
    "lengths": {"pattern": rg.Causal() & rg.KeyLengths(torch.tensor([5]))},
    "mask": {"pattern": rg.Mask(HIDE[1])},
    "around": {
        "pattern": rg.Around(CENTER[1], left=2, right=1),
        "normalizer": rg.Softmax(prior=rg.Gaussian(CENTER[1], 2.0)),
    },
    "bias": {"bias": torch.linspace(-1, 1, H * L * L, dtype=torch.float64).reshape(H, L, L)},
    "alibi": {"bias": rg.ALiBi(torch.tensor([0.5, 0.1], dtype=torch.float64)), "score": rg.Dot(softcap=2.0)},
    "sink": {"normalizer": rg.Softmax(sink=torch.zeros(H, dtype=torch.float64))},
    "entmax": {"normalizer": rg.Entmax(1.5), "score": rg.Cosine(3.0)},
    "sigmoid": {"normalizer": rg.Sigmoid(-1.0)},
    "dropout": {"dropout": 0.3, "seed": 5},
}
FIRST_ORDER: dict[str, Callable[[Attention], Tensor]] = {
    "grad": lambda f: grad(scalar(f))(X[0]),
    "grad of grad": lambda f: grad(lambda x: grad(scalar(f))(x).cos().sum())(X[0]),
    "vjp": lambda f: vjp(f, X[0])[1](X[1])[0],
    "jvp": lambda f: jvp(f, (X[0],), (X[1],))[1],
    "jacrev": lambda f: jacrev(f, chunk_size=11)(X[0]),
    "functionalize": lambda f: functionalize(f)(X[0]),
}
OVER_EXAMPLES: dict[str, Callable[[Attention], Tensor]] = {
    "vmap": lambda f: vmap(f)(X),
    "vmap, last dimension to the first": lambda f: vmap(f, in_dims=-1, out_dims=1)(X.movedim(0, -1)),
    "vmap of vmap": lambda f: vmap(vmap(f, in_dims=1), in_dims=0)(X[:, :, None].expand(N, B, 2, H, L, E)),
    "grad of each example": lambda f: vmap(grad(scalar(f)))(X),
    "jacfwd": lambda f: jacfwd(f)(X[0]),
    "hessian": lambda f: hessian(scalar(f))(X[0]),
    "jacrev of jacrev": lambda f: jacrev(jacrev(scalar(f)))(X[0]),
    "linearize": lambda f: linearize(f, X[0])[1](X[1]),
}


@pytest.mark.parametrize("arguments", ARGUMENTS.values(), ids=ARGUMENTS)
@pytest.mark.parametrize("run", (FIRST_ORDER | OVER_EXAMPLES).values(), ids=FIRST_ORDER | OVER_EXAMPLES)
def test_auto_is_the_dense_formula(run: Callable[[Attention], Tensor], arguments: dict[str, Any]) -> None:
    torch.testing.assert_close(
        run(attention("auto", **arguments)), run(attention("reference", **arguments)), rtol=0, atol=1e-10
    )


@pytest.mark.parametrize("backend", TILES)
@pytest.mark.parametrize("arguments", ARGUMENTS.values(), ids=ARGUMENTS)
@pytest.mark.parametrize("run", FIRST_ORDER.values(), ids=FIRST_ORDER)
def test_tiles_have_what_needs_no_examples(
    run: Callable[[Attention], Tensor], arguments: dict[str, Any], backend: str
) -> None:
    torch.testing.assert_close(
        run(attention(backend, **arguments)), run(attention("reference", **arguments)), rtol=0, atol=1e-10
    )


WITHOUT = ("jacrev of jacrev", "linearize")  # examples in the forward pass


@pytest.mark.parametrize("backend", TILES)
@pytest.mark.parametrize("run", [run for name, run in OVER_EXAMPLES.items() if name not in WITHOUT])
def test_tiles_refuse_examples_by_name(run: Callable[[Attention], Tensor], backend: str) -> None:
    with pytest.raises(UnsupportedError, match=rf"'{backend}' cannot compute .*torch\.func"):
        run(attention(backend))


def test_sdpa_refuses_what_its_kernels_have_no_derivatives_for() -> None:
    f = attention("sdpa")
    torch.testing.assert_close(vmap(grad(scalar(f)))(X), vmap(grad(scalar(attention("reference"))))(X))
    with pytest.raises(UnsupportedError, match="forward mode"):
        hessian(scalar(f))(X[0])
    with pytest.raises(UnsupportedError, match="second"):
        jacrev(jacrev(scalar(f)))(X[0])


# What a value holds may differ from example to example: (of an example's value, its arguments of `attend`).
HELD: dict[str, tuple[Tensor, Callable[[Any], dict[str, Any]]]] = {
    "mask": (HIDE, lambda x: {"pattern": rg.Mask(x)}),
    "lengths": (LENGTHS, lambda x: {"pattern": rg.KeyLengths(x[None])}),
    "prefix": (LENGTHS, lambda x: {"pattern": rg.PrefixLM(x[None])}),
    "documents": (LENGTHS.repeat(L, 1).T % 3, lambda x: {"pattern": rg.Documents(x[None])}),
    "blocks": (HIDE[:, :4, :4], lambda x: {"pattern": rg.BlockSparse(x, block_size=2)}),
    "center": (CENTER, lambda x: {"pattern": rg.Around(x, left=1, right=2)}),
    "width": (CENTER[:, 0, 0].exp(), lambda x: {"normalizer": rg.Softmax(prior=rg.Gaussian(CENTER[0], x))}),
    "bias": (CENTER, lambda x: {"bias": x[:, None]}),
    "slopes": (CENTER[:, :, 1], lambda x: {"bias": rg.ALiBi(x)}),
    "scale": (CENTER[:, :, 1], lambda x: {"score": rg.Dot(scale=x)}),
    "alpha": (CENTER[:, :, 0].exp() + 1, lambda x: {"normalizer": rg.Entmax(x)}),
    "start": (LENGTHS, lambda x: {"pattern": rg.Causal(), "query_start": x[None]}),
    "seed": (LENGTHS, lambda x: {"dropout": 0.5, "seed": x}),
}


@pytest.mark.parametrize(("held", "arguments"), HELD.values(), ids=HELD)
@pytest.mark.parametrize("shared", [False, True], ids=["own inputs", "shared inputs"])
def test_values_of_each_example(held: Tensor, arguments: Callable[[Any], dict[str, Any]], shared: bool) -> None:
    def one(x: Tensor, mine: Tensor) -> Tensor:
        return rg.attend(x, x, x, **arguments(mine))

    found = vmap(one, in_dims=(None if shared else 0, 0))(X[0] if shared else X, held)
    expected = [one(X[0 if shared else i], held[i]) for i in range(N)]
    torch.testing.assert_close(found, torch.stack(expected), rtol=0, atol=1e-10)


def test_dropout_is_random_as_vmap_is_asked() -> None:
    same = X[:1].expand(N, B, H, L, E)
    f = attention("auto", dropout=0.5)
    with pytest.raises(RuntimeError, match="randomness"):
        vmap(f)(same)
    alike, apart = (vmap(f, randomness=kind)(same) for kind in ("same", "different"))
    assert torch.equal(alike[0], alike[1])
    assert not torch.equal(apart[0], apart[1])


def test_summaries_of_each_example() -> None:
    summary = rg.Summary(
        log_sum_exp=True, entropy=True, expected_key=True, key_mass=True, top_k=3, grid=(2, 3), weights=True
    )

    def one(x: Tensor) -> dict[str, Tensor]:
        result = rg.attend(x, x, x, pattern=rg.Causal(), summary=summary)[1]
        return {name: x for name, x in vars(result).items() if x is not None}

    for name, found in vmap(one)(X).items():
        torch.testing.assert_close(found, torch.stack([one(x)[name] for x in X]))


@pytest.mark.parametrize("backend", [*BACKENDS, "sdpa"])
def test_many_gradients_at_once(backend: str) -> None:
    """A plain backward pass under vmap: by `is_grads_batched`, and by `torch.vmap` over `torch.autograd.grad`."""
    x = X[0].clone().requires_grad_()
    output = attention(backend, pattern=rg.Causal())(x)
    incoming = X.flip(0)
    expected = torch.stack([torch.autograd.grad(output, x, g, retain_graph=True)[0] for g in incoming])
    [found] = torch.autograd.grad(output, x, incoming, is_grads_batched=True, retain_graph=True)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-10)
    again = vmap(lambda g: torch.autograd.grad(output, x, g, retain_graph=True)[0])(incoming)
    torch.testing.assert_close(again, expected, rtol=0, atol=1e-10)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("arguments", [ARGUMENTS["lengths"], ARGUMENTS["entmax"], ARGUMENTS["sink"]], ids=str)
@pytest.mark.parametrize("strategy", ["reverse-mode", "forward-mode"])
def test_the_older_jacobian_and_hessian(arguments: dict[str, Any], backend: str, strategy: str) -> None:
    f, dense = attention(backend, **arguments), attention("reference", **arguments)
    jacobian, hessian = torch.autograd.functional.jacobian, torch.autograd.functional.hessian
    torch.testing.assert_close(
        jacobian(f, X[0], vectorize=True, strategy=strategy), jacobian(dense, X[0]), rtol=0, atol=1e-10
    )
    found = hessian(scalar(f), X[0], vectorize=True, outer_jacobian_strategy=strategy)
    torch.testing.assert_close(found, hessian(scalar(dense), X[0]), rtol=0, atol=1e-10)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("length", [1, L])
def test_one_tensor_as_query_key_and_value_has_its_gradient_once(backend: str, length: int) -> None:
    def gradients(backend: str) -> tuple[Tensor, Tensor]:
        x = X[0, :, :, :length].clone().requires_grad_()
        [first] = torch.autograd.grad(scalar(attention(backend))(x), x, create_graph=True)
        return first, torch.autograd.grad(first.cos().sum(), x)[0]

    for found, expected in zip(gradients(backend), gradients("reference"), strict=True):
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-10)


@pytest.mark.parametrize("run", ["vmap", "grad of each example", "jvp", "hessian"])
def test_compiled(run: str) -> None:
    torch.compiler.reset()
    f, transform = attention("auto", pattern=rg.Causal()), (FIRST_ORDER | OVER_EXAMPLES)[run]
    compiled = torch.compile(lambda: transform(f), backend="aot_eager", fullgraph=True)
    torch.testing.assert_close(compiled(), transform(f), rtol=0, atol=1e-10)


VOCABULARY = rg.Vocabulary(size=19)
SIZES = {"embed_dim": 12, "num_heads": 3, "ffn_dim": 20}
TOKENS = torch.tensor([[5, 6, 7, 2], [8, 2, 0, 0], [9, 9, 2, 0]])
COUNTS = torch.tensor([4, 2, 3])
TARGETS = torch.tensor([[1, 7, 8], [1, 9, 3], [1, 4, 4]])
MODELS: dict[str, Callable[[], tuple[nn.Module, tuple[Tensor, ...]]]] = {
    "layer": lambda: (
        rg.MultiHeadAttention(
            12, 3, positions=rg.Rotary(4), score=rg.LearnedCosine(), normalizer=rg.LearnedEntmax(), dropout=0.1
        ),
        (torch.randn(3, 4, 12, dtype=torch.float64),),
    ),
    "transformer": lambda: (
        rg.Transformer(
            rg.TransformerConfig(vocabulary=VOCABULARY, encoder_layers=1, decoder_layers=1, **SIZES)
        ),
        (TOKENS, COUNTS, TARGETS),
    ),
    "t5": lambda: (
        rg.T5(rg.T5Config(vocabulary=VOCABULARY, head_dim=4, encoder_layers=1, decoder_layers=1, **SIZES)),
        (TOKENS, COUNTS, TARGETS),
    ),
    "gpt": lambda: (rg.GPT(rg.GPTConfig(vocabulary=VOCABULARY, num_layers=2, max_length=8, **SIZES)), (TOKENS,)),
    "bert": lambda: (
        rg.Bert(rg.BertConfig(vocab_size=19, num_layers=1, max_positions=8, **SIZES)), (TOKENS,)
    ),
    "luong": lambda: (
        rg.Luong(rg.LuongConfig(vocabulary=VOCABULARY, embed_dim=8, hidden_dim=8, num_layers=1, window="local-p")),
        (TOKENS, COUNTS, TARGETS),
    ),
    "rnn": lambda: (rg.RNN(rg.RNNConfig(vocabulary=VOCABULARY, embed_dim=8, hidden_dim=8)), (TOKENS, COUNTS, TARGETS)),
    "convs2s": lambda: (
        rg.ConvS2S(rg.ConvS2SConfig(vocabulary=VOCABULARY, embed_dim=8, hidden_dim=8)), (TOKENS, COUNTS, TARGETS)
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", MODELS)
def test_gradients_of_a_model_for_each_example(name: str) -> None:
    torch.manual_seed(0)
    made, inputs = MODELS[name]()
    model = made.double().eval()
    parameters = dict(model.named_parameters())

    def loss(parameters: dict[str, Tensor], *example: Tensor) -> Tensor:
        output = functional_call(model, parameters, tuple(x[None] for x in example))
        return (output if isinstance(output, Tensor) else output.logits).square().sum()

    gradients = vmap(grad(loss), in_dims=(None, *(0 for _ in inputs)))
    found = gradients(parameters, *inputs)
    for i in range(len(inputs[0])):
        one = grad(loss)(parameters, *(x[i] for x in inputs))
        for path, expected in one.items():
            torch.testing.assert_close(found[path][i], expected, rtol=1e-8, atol=1e-9)

    model.train()  # dropout of each example
    vmap(grad(loss), in_dims=(None, *(0 for _ in inputs)), randomness="different")(parameters, *inputs)


@pytest.mark.parametrize("name", MODELS)
def test_an_ensemble_of_models(name: str) -> None:
    made = [MODELS[name]() for _ in range(3)]
    models, inputs = [model.double().eval() for model, _ in made], made[0][1]
    state = stack_module_state(models)

    def one(parameters: dict[str, Tensor], buffers: dict[str, Tensor]) -> Tensor:
        output = functional_call(models[0], (parameters, buffers), inputs)
        return output if isinstance(output, Tensor) else output.logits

    expected = [one(dict(model.named_parameters()), dict(model.named_buffers())) for model in models]
    with torch.no_grad():
        torch.testing.assert_close(vmap(one)(*state), torch.stack(expected), rtol=0, atol=1e-10)
