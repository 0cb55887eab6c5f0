"""Prepared steps are the layers' own."""

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import regard as rg
from regard import kernels
from regard.layers.attention_config import AttentionConfig
from regard.layers.linear import MAX_DOT_ROWS
from regard.layers.step import causal_step, decoder_step
from regard.models.decoder_state import DecoderState
from regard.models.gpt import GPT, GPTConfig
from regard.models.language_model import PromptState
from regard.models.seq2seq import Vocabulary
from regard.models.transformer import Transformer, TransformerConfig
from tests.models.inputs import lengths_of

WORDS = Vocabulary(size=50)
ISAS = kernels.module().isas() if kernels.missing() is None else []
needs_kernels = pytest.mark.skipif(
    kernels.missing() is not None or kernels.isa() == "baseline", reason="there are no kernels that are raced here"
)


def transformer(**changes: Any) -> Any:
    """With weights that make the order of norms, biases and sums matter."""
    torch.manual_seed(0)
    sizes = {"embed_dim": 24, "num_heads": 3, "ffn_dim": 37, "encoder_layers": 1, "decoder_layers": 2}
    return spread(Transformer(TransformerConfig(vocabulary=WORDS, **{**sizes, **changes})))


def gpt(**changes: Any) -> Any:
    torch.manual_seed(0)
    sizes = {"embed_dim": 24, "num_heads": 3, "ffn_dim": 37, "num_layers": 2, "max_length": 300}
    return spread(GPT(GPTConfig(vocabulary=WORDS, **{**sizes, **changes})))


def spread(model: Any) -> Any:
    for parameter in model.parameters():
        if parameter.dim() == 1:
            nn.init.normal_(parameter)
    return model.eval()


@pytest.fixture(params=ISAS)
def isa(request: pytest.FixtureRequest) -> Iterator[str]:
    best = kernels.isa()
    kernels.module().choose(request.param)
    yield request.param
    kernels.module().choose(best)


def hypotheses(model: Transformer, count: int, steps: int, *, native: bool) -> Tensor:
    """Features of steps with so many hypotheses of sentences, some of which end or go on from others."""
    drawn = torch.Generator().manual_seed(1)
    source = torch.randint(3, WORDS.size, (4, 9), generator=drawn)
    source[1, 5:] = source[3, 1:] = WORDS.pad
    state = model.start(model.encode(source, lengths_of(source, WORDS.pad)))
    set_steps(state, model, native=native)
    found = [model.advance(torch.randint(3, WORDS.size, (4, 1), generator=drawn), state)]
    state.reorder(torch.zeros(4, count, dtype=torch.int64))
    for number in range(steps):
        if number == 3:
            state.keep(torch.tensor([0, 1, 3]))
        found.append(
            model.advance(torch.randint(3, WORDS.size, (3 if number >= 3 else 4, count), generator=drawn), state)
        )
        state.reorder(torch.randint(count, found[-1].shape[:2], generator=drawn))
    return torch.cat([x.flatten() for x in found])


def set_steps(state: DecoderState | PromptState, model: Any, *, native: bool) -> None:
    """Native steps, which must be there; or the layers' own."""
    state.stack = None
    if native:
        assert not any(hasattr(step, "__self__") for step in state.steps)
    else:
        layers = model.decoder if isinstance(model, Transformer) else model.layers
        state.steps = [layer.step if isinstance(model, Transformer) else own(layer) for layer in layers]


def own(layer: Any) -> Any:
    return lambda x, past: layer(x, past=past)


@needs_kernels
@pytest.mark.parametrize("count", [1, 3, 6])
@pytest.mark.parametrize("activation", ["relu", "swish", "gelu"])
@pytest.mark.parametrize("norm", ["pre", "post"])
@torch.inference_mode()
def test_a_decoder(norm: str, activation: str, count: int) -> None:
    model = transformer(norm=norm, activation=activation)
    found, expected = (hypotheses(model, count, 8, native=native) for native in (True, False))
    torch.testing.assert_close(found, expected, rtol=0, atol=2e-5)


@pytest.mark.skipif(kernels.missing() is not None, reason="there are no kernels")
@torch.inference_mode()
def test_on_every_instruction_set(isa: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("regard.layers.step.fast", kernels.module)  # the plainest, too
    model, texts = transformer(norm="pre"), gpt(activation="gelu-tanh", head_dim=20)
    found, expected = (hypotheses(model, 2, 70, native=native) for native in (True, False))
    torch.testing.assert_close(found, expected, rtol=0, atol=2e-5)
    found, expected = (written(texts, 3, 20, native=native) for native in (True, False))
    torch.testing.assert_close(found, expected, rtol=0, atol=2e-5)


def written(model: GPT, prompt: int, steps: int, *, native: bool) -> Tensor:
    drawn = torch.Generator().manual_seed(1)
    state = model.start(torch.randint(3, WORDS.size, (3, prompt), generator=drawn))
    set_steps(state, model, native=native)
    return torch.cat(
        [model.advance(torch.randint(3, WORDS.size, (3, 1), generator=drawn), state) for _ in range(steps)], 1
    )


@needs_kernels
@pytest.mark.parametrize("prompt", [0, 1, 100])
@pytest.mark.parametrize(
    "changes", [{}, {"band": 5}, {"activation": "relu", "scale_by_layer": True}, {"scale_by_size": False}], ids=str
)
@torch.inference_mode()
def test_a_language_model(changes: dict[str, Any], prompt: int) -> None:
    model = gpt(**changes)
    found, expected = (written(model, prompt, 80, native=native) for native in (True, False))
    torch.testing.assert_close(found, expected, rtol=0, atol=2e-5)


@needs_kernels
@torch.inference_mode()
def test_a_row_does_not_depend_on_those_beside_it() -> None:
    model = transformer(norm="pre")
    source = torch.randint(3, WORDS.size, (20, 7))
    tokens = torch.randint(3, WORDS.size, (20, 3))
    together, alone = model.start(model.encode(source)), model.start(model.encode(source[4:5]))
    alone.memory = [type(kept)() for kept in together.memory]
    for some, all_of_them in zip(alone.memory, together.memory, strict=True):
        some.append(*(x[4:5] for x in all_of_them.contents[:2]))
    for number in range(3):
        one = model.advance(tokens[4:5, number, None], alone)
        assert torch.equal(one, model.advance(tokens[:, number, None], together)[4:5])


@needs_kernels
def test_what_the_kernels_do_not_compute_is_left_to_the_layer() -> None:
    """Hooks, training, other maps, dtypes, activations, scores, normalizers, patterns and biases."""
    layer = transformer().decoder[0]
    with torch.inference_mode():
        assert decoder_step(layer) != layer.step
        hook = layer.cross_attention.register_forward_hook(lambda *_: None)
        assert decoder_step(layer) == layer.step
        hook.remove()
        layer.train()
        assert decoder_step(layer) == layer.step
        layer.eval()
        layer.feed_forward.expand = nn.Linear(24, 37)
        assert decoder_step(layer) == layer.step
        for other in (
            transformer().double(),
            transformer(activation="mish"),
            transformer(attention=AttentionConfig(score=rg.Cosine(3.0))),
            transformer(attention=AttentionConfig(normalizer=rg.Entmax(1.5))),
            transformer(attention=AttentionConfig(pattern=rg.Dilated(left=4, right=0, dilation=2))),
            transformer(attention=AttentionConfig(position_bias=rg.ALiBiSlopes())),
        ):
            assert all(decoder_step(one) == one.step for one in other.decoder)


@needs_kernels
@torch.inference_mode()
def test_an_accelerated_layer_that_keeps_its_precision_is_as_usual() -> None:
    expected, model = written(gpt(), 3, 20, native=False), rg.accelerate(gpt())
    torch.testing.assert_close(written(model, 3, 20, native=True), expected, rtol=0, atol=2e-5)
    layer = rg.accelerate(transformer(), dtype=torch.bfloat16).decoder[0]
    assert decoder_step(layer) == layer.step


@needs_kernels
def test_gradients_and_many_rows_go_by_the_layer() -> None:
    model = transformer(norm="pre", dropout=0.0)
    source, tokens = torch.randint(3, WORDS.size, (1, 7)), torch.randint(3, WORDS.size, (1, 1))
    model.advance(tokens, model.start(model.encode(source))).sum().backward()
    assert model.decoder[0].feed_forward.expand.weight.grad is not None
    many = torch.randint(3, WORDS.size, (MAX_DOT_ROWS + 1, 1))
    with torch.inference_mode():
        state = model.start(model.encode(source.expand(MAX_DOT_ROWS + 1, -1)))
        found = model.advance(many, state)
        for native in (True, False):
            alone = model.start(model.encode(source))
            set_steps(alone, model, native=native)
            torch.testing.assert_close(model.advance(many[-1:], alone), found[-1:], rtol=0, atol=2e-5)


@needs_kernels
@torch.inference_mode()
def test_dropout_begins_on_the_way() -> None:
    model = gpt()
    found = []
    for _ in range(2):
        state = model.eval().start(torch.tensor([[5, 6]]))
        model.train()
        found.append(model.advance(torch.tensor([[7]]), state))
    assert not torch.equal(*found)


@needs_kernels
@torch.inference_mode()
def test_an_input_with_strides_of_its_own() -> None:
    model = gpt()
    past = model.start(torch.tensor([[5, 6], [7, 8]])).past[0]
    x = torch.randn(24, 1, 2).transpose(0, 2)
    assert not x.is_contiguous()
    expected = model.layers[0](x, past=_copy(past))
    torch.testing.assert_close(causal_step(model.layers[0])(x, past), expected, rtol=0, atol=2e-5)


def _copy(past: Any) -> Any:
    copy = type(past)()
    copy.append(*past.contents[:2])
    return copy
