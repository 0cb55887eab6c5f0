"""A decoder's step in one native call is that of its layers."""

import copy
import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import regard as rg
from regard import kernels
from regard.attention.cache import KeyValueCache
from regard.attention.patterns.pattern import Causal
from regard.errors import ShapeError
from regard.layers.causal_layer import CausalLayer
from regard.layers.multi_head_attention import MultiHeadAttention
from regard.layers.quantization import quantize_maps
from regard.layers.step import causal_step
from regard.layers.transformer_layer import FeedForward
from regard.models.gpt import GPT, GPTConfig
from regard.models.seq2seq import Vocabulary
from regard.models.transformer import Transformer, TransformerConfig
from regard.models.whisper import Whisper, WhisperConfig

WORDS = Vocabulary(size=269)  # what follows is large enough to be quantized
pytestmark = pytest.mark.skipif(
    kernels.missing() is not None or kernels.isa() == "baseline", reason="there are no kernels that are raced here"
)


def transformer(**changes: Any) -> Any:
    sizes = {"embed_dim": 72, "num_heads": 3, "ffn_dim": 85, "encoder_layers": 1, "decoder_layers": 2}
    return spread(lambda: Transformer(TransformerConfig(vocabulary=WORDS, **{**sizes, **changes})))


def gpt(**changes: Any) -> Any:
    sizes = {"embed_dim": 72, "num_heads": 3, "ffn_dim": 85, "num_layers": 2, "max_length": 150}
    return spread(lambda: GPT(GPTConfig(vocabulary=WORDS, **{**sizes, **changes})))


def whisper() -> Any:
    sizes = {"embed_dim": 72, "num_heads": 3, "ffn_dim": 85, "encoder_layers": 1, "decoder_layers": 2}
    return spread(lambda: Whisper(WhisperConfig(vocabulary=WORDS, num_mels=8, max_length=40, **sizes)))


def spread(build: Callable[[], Any]) -> Any:
    """With weights that make the order of norms, biases and sums matter."""
    torch.manual_seed(0)
    model = build()
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.5 if parameter.dim() == 1 else 0.1)
    return model.eval()


def prefilled(model: Any) -> Any:
    drawn = torch.Generator().manual_seed(1)
    if isinstance(model, GPT):
        return model.start(torch.randint(3, WORDS.size, (4, 6), generator=drawn))
    if isinstance(model, Whisper):
        return model.start(model.encode(torch.randn(4, 30, 8, generator=drawn)))
    sources = torch.randint(3, WORDS.size, (4, 9), generator=drawn)
    return model.start(model.encode(sources, torch.tensor([9, 5, 7, 1])))


def outputs(model: Any, *, native: bool, logits: bool = False, steps: int = 9, count: int = 3) -> Tensor:
    """Outputs of steps in which hypotheses part, go on from others and end."""
    state, drawn = prefilled(model), torch.Generator().manual_seed(2)
    assert state.step(torch.full((4, 1), 5), logits=True) is not None
    if not native:
        state.stack = None
    step = model.step if logits else model.advance
    results = [step(torch.randint(3, WORDS.size, (4, 1), generator=drawn), state)]
    state.reorder(torch.zeros(4, count, dtype=torch.int64))
    for number in range(steps):
        if number == 3:
            state.keep(torch.tensor([0, 1, 3]))
        batch = 4 if number < 3 else 3
        results.append(step(torch.randint(3, WORDS.size, (batch, count), generator=drawn), state))
        state.reorder(torch.randint(count, (batch, count), generator=drawn))
    return torch.cat([x.flatten() for x in results])


@pytest.mark.parametrize("int8", [False, True])
@pytest.mark.parametrize(
    "changes",
    [
        {"activation": "gelu"},
        {"activation": "swish", "positions": "learned"},
        {"positions": "sinusoidal-halves", "output_bias": True, "scale_embedding": False},
    ],
    ids=str,
)
@torch.inference_mode()
def test_without_a_last_norm_every_bit_is_that_of_the_layers(changes: dict[str, Any], int8: bool) -> None:
    model = transformer(**changes)
    model = quantize_maps(model) if int8 else model
    for logits in (False, True):
        assert torch.equal(*(outputs(model, native=native, logits=logits) for native in (True, False)))


@pytest.mark.parametrize("int8", [False, True])
@pytest.mark.parametrize(
    "build",
    [
        lambda: transformer(norm="pre"),
        whisper,
        gpt,
        lambda: gpt(band=5, activation="relu"),
        lambda: gpt(tie_output=False),
    ],
    ids=["transformer", "whisper", "gpt", "banded gpt", "untied gpt"],
)
@torch.inference_mode()
def test_a_last_norm_differs_by_its_rounding(build: Callable[[], Any], int8: bool) -> None:
    model = quantize_maps(build()) if int8 else build()
    native, layers = (outputs(model, native=native) for native in (True, False))
    torch.testing.assert_close(native, layers, rtol=0, atol=1e-5)
    if not int8:
        native, layers = (outputs(model, native=native, logits=True) for native in (True, False))
        torch.testing.assert_close(native, layers, rtol=0, atol=1e-5)


@pytest.mark.parametrize("search", [rg.Greedy(), rg.Beam(4)], ids=["greedy", "beam"])
@pytest.mark.parametrize("int8", [False, True])
@pytest.mark.parametrize("norm", ["pre", "post"])
def test_64_sentences_alone_in_a_batch_and_on_two_threads(
    norm: str, int8: bool, search: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, threads = transformer(norm=norm), torch.get_num_threads()
    model = quantize_maps(model) if int8 else model
    drawn = torch.Generator().manual_seed(3)
    lengths = torch.randint(1, 20, (64,), generator=drawn).tolist()
    sources = [torch.randint(3, WORDS.size, (length,), generator=drawn).tolist() for length in lengths]

    def decoded(batch_size: int) -> Any:
        targets = rg.generate(model, sources, search=search, batch_size=batch_size, max_length=8)
        return [x[0].tokens for x in targets], torch.tensor([x[0].score for x in targets])

    tokens, scores = decoded(1)
    runs = [decoded(64)]
    torch.set_num_threads(2)
    try:
        runs.append(decoded(64))
    finally:
        torch.set_num_threads(threads)
    monkeypatch.setattr("regard.models.decoder_state.decoder_stack", lambda *_: None)
    runs.append(decoded(1))
    for other_tokens, other_scores in runs:
        assert other_tokens == tokens
        torch.testing.assert_close(other_scores, scores, rtol=0, atol=1e-5)


@torch.inference_mode()
def test_exact_gelu_is_within_its_error_bound() -> None:
    """|error| <= 2.5e-7 max(1, |x|): 1.5e-7 of the fit and one rounding, where PyTorch's own has three roundings."""
    size = 1024
    attention = MultiHeadAttention(size, 16, pattern=Causal())
    layer = CausalLayer(attention, FeedForward(size, size, "gelu"), norm=lambda: nn.LayerNorm(size)).eval()
    for part in (attention.output_proj.weight, attention.output_proj.bias, layer.feed_forward.expand.weight):
        nn.init.zeros_(part)
    nn.init.eye_(layer.feed_forward.contract.weight)
    step = causal_step(layer)
    for first in range(-14, 14):
        x = torch.linspace(first, first + 1, size)
        layer.feed_forward.expand.bias.copy_(x)
        y = step(torch.zeros(1, 1, size), KeyValueCache())[0, 0].double()
        exact = 0.5 * x.double() * torch.special.erfc(-x.double() / math.sqrt(2))
        assert ((y - exact).abs() <= 2.5e-7 * x.abs().clamp_min(1)).all()
    for number in (math.nan, math.inf, 1e38, -1e38):
        layer.feed_forward.expand.bias.fill_(number)
        layer.feed_forward.contract.weight.copy_(torch.eye(size) * 0)
        y = step(torch.zeros(1, 1, size), KeyValueCache())
        assert bool(y.isnan().any()) == (not math.isfinite(number))


@torch.inference_mode()
def test_who_looks_into_a_part_gets_to_see_it() -> None:
    model = transformer(norm="pre")
    for part in (model.embedding, model.dropout, model.decoder_norm, model.decoder[1].feed_forward.expand):
        seen: list[Any] = []
        hook = part.register_forward_hook(lambda *_, seen=seen: seen.append(1))
        state = prefilled(model)
        seen.clear()
        model.step(torch.full((4, 1), 5), state)
        assert state.stack is None
        assert len(seen) == 1
        hook.remove()
    state = prefilled(model)
    with rg.record(model) as seen_by_recorder:
        model.step(torch.full((4, 1), 5), state)
    assert len(seen_by_recorder) == 4
    assert state.step(torch.full((4, 1), 6), logits=True) is not None


def test_training_gradients_and_autocast_go_by_the_layers() -> None:
    model, tokens = transformer(dropout=0.0), torch.full((4, 1), 5)
    with torch.no_grad():
        state = prefilled(model)
        assert state.step(tokens, logits=True) is not None
        with torch.autocast("cpu", torch.bfloat16):
            assert state.step(tokens, logits=True) is None
        model.train()
        assert state.step(tokens, logits=True) is None
    model.eval()
    model.step(tokens, prefilled(model)).sum().backward()
    assert model.embedding.weight.grad is not None


@torch.inference_mode()
def test_bad_tokens_and_positions_are_refused_and_change_nothing() -> None:
    model = gpt(max_length=8)
    state, again = prefilled(model), prefilled(model)
    for token in (-1, WORDS.size):
        with pytest.raises(IndexError):
            model.step(torch.full((4, 1), token), state)
    tokens = torch.full((4, 1), 5)
    assert torch.equal(model.step(tokens, state), model.step(tokens, again))
    model.step(tokens, state)
    with pytest.raises(ShapeError, match="0 to 7"):
        model.step(tokens, state)


@torch.inference_mode()
def test_copies_restored_and_accelerated_models_and_new_weights() -> None:
    expected = outputs(transformer(), native=False, logits=True)
    model = transformer()
    rounded = outputs(rg.accelerate(model, dtype="int8"), native=True, logits=True)
    assert not torch.equal(rounded, expected)
    assert torch.equal(outputs(copy.deepcopy(model), native=True, logits=True), rounded)
    rg.restore(model)
    assert torch.equal(outputs(model, native=True, logits=True), expected)
    assert torch.equal(outputs(copy.deepcopy(rg.accelerate(model)), native=True, logits=True), expected)
    other = transformer()
    nn.init.normal_(other.embedding.weight)
    other.load_state_dict(model.state_dict())
    assert torch.equal(outputs(other, native=True, logits=True), expected)


@torch.inference_mode()
def test_what_the_kernels_do_not_compute_has_no_stack() -> None:
    for model in (transformer().double(), transformer(activation="mish"), transformer().bfloat16()):
        assert prefilled(model).stack is None
    model = transformer()
    model.embedding.max_norm = 1.0
    assert prefilled(model).stack is None
