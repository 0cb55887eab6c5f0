"""Attentions of other libraries' models, and of one's own, under the recorder."""

import contextlib
import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

import regard as rg
from regard.lens.record import record
from tests.integrations.tiny import model_types
from tests.lens.sweep import verdict

transformers = pytest.importorskip("transformers")
pytestmark = pytest.mark.filterwarnings("ignore::UserWarning", "ignore::FutureWarning")
CAPTURED = ("bert", "gpt2", "gpt_oss", "gemma2", "llama", "marian", "mistral", "t5", "vit", "whisper")
REFUSED = ("longformer", "reformer")


@pytest.mark.parametrize("name", CAPTURED)
def test_models_are_captured_with_the_weights_of_eager_attention(name: str) -> None:
    transformers.logging.set_verbosity(transformers.logging.CRITICAL)
    found = verdict(name)
    assert (found.outcome, found.why) == ("captured", "")
    assert found.attentions > 0


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_seen_is_named(name: str) -> None:
    transformers.logging.set_verbosity(transformers.logging.CRITICAL)
    found = verdict(name)
    assert found.outcome == "refused"
    assert "Attention" in found.why


@pytest.mark.slow
@pytest.mark.parametrize("name", model_types())
def test_none_is_wrong(name: str) -> None:
    assert verdict(name).outcome != "wrong"


def eager(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """As models write attention: softmax, a cast, dropout, a product; with a sink that is cut off."""
    scores = query @ key.mT / math.sqrt(query.shape[-1])
    scores = torch.cat([scores, torch.zeros_like(scores[..., :1])], -1)
    weights = functional.softmax(scores, dim=-1, dtype=torch.float32).to(query.dtype)[..., :-1]
    return torch.matmul(functional.dropout(weights, 0.0), value)


def by_head(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """Heads in the batch, by bmm."""
    flat = [x.flatten(0, 1) for x in (query, key, value)]
    weights = torch.bmm(flat[0], flat[1].mT).softmax(-1)
    return torch.bmm(weights, flat[2]).unflatten(0, query.shape[:2])


WAYS = {
    "eager": eager,
    "bmm": by_head,
    "sdpa": functional.scaled_dot_product_attention,
    "causal": lambda q, k, v: functional.scaled_dot_product_attention(q, k, v, is_causal=True),
    "einsum": lambda q, k, v: torch.einsum("bhls,bhsv->bhlv", (q @ k.mT).softmax(-1), v),
}


class Own(nn.Module):
    """A module of one's own with two heads."""

    num_heads = 2

    def __init__(self, way: str) -> None:
        super().__init__()
        self.way = WAYS[way]

    def forward(self, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        return self.way(query, key, value)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_modules_of_ones_own(way: str, dtype: torch.dtype) -> None:
    torch.manual_seed(1)
    query, key, value = (torch.randn(3, 2, n, 4, dtype=dtype) for n in (5, 7, 7))
    module = Own(way)
    expected = module(query, key, value)
    with record(module, weights=True) as recording:
        assert torch.equal(module(query, key, value), expected)
    assert recording[""].shape == (3, 2, 5, 7)
    mixed = recording[""].weights.to(torch.float64) @ value.double()
    rounding = {torch.float64: 1e-12, torch.float32: 1e-5, torch.bfloat16: 0.03}[dtype]
    torch.testing.assert_close(mixed, expected.double(), rtol=rounding, atol=rounding)


def test_two_attentions_of_one_module_are_told_apart() -> None:
    class Both(nn.Module):
        def forward(self, x: Tensor, memory: Tensor) -> Tensor:
            x = functional.scaled_dot_product_attention(x, x, x)
            return functional.scaled_dot_product_attention(x, memory, memory)

    module = Both()
    with record(module) as recording:
        for _ in range(2):
            module(torch.randn(1, 1, 3, 4), torch.randn(1, 1, 6, 4))
    assert {path: one.shape for path, one in recording.items()} == {"": (1, 1, 6, 3), "#2": (1, 1, 6, 6)}


def test_flex_attention() -> None:
    from torch.nn.attention.flex_attention import create_block_mask, flex_attention

    class Flex(nn.Module):
        def forward(self, query: Tensor, key: Tensor) -> Tensor:
            mask = create_block_mask(lambda b, h, q, k: k <= q + 2, 1, 1, 6, 8, device="cpu")
            return flex_attention(
                query,
                key,
                key,
                score_mod=lambda s, b, h, q, k: s - (q - k).abs() * (h + 1),
                block_mask=mask,
                enable_gqa=True,
            )

    torch.manual_seed(2)
    query, key, module = torch.randn(2, 4, 6, 16), torch.randn(2, 2, 8, 16), Flex()
    with torch.no_grad(), record(module, weights=True) as recording:
        module(query, key)
    distance = torch.arange(6)[:, None] - torch.arange(8)
    scores = query @ key.repeat_interleave(2, 1).mT / 4 - distance.abs() * torch.arange(1, 5)[:, None, None]
    expected = scores.masked_fill(distance < -2, -torch.inf).softmax(-1)
    torch.testing.assert_close(recording[""].weights, expected, rtol=0, atol=1e-6)
    assert recording[""].kinds == ["flex_attention"]


def test_weights_that_are_not_the_models_are_refused() -> None:
    """An adapter that says something else than the module does."""

    class Odd(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x.flip(2)

    module = Odd()
    adapters = {
        "": lambda module, args, kwargs, output: {"query": args[0], "key": args[0], "value": args[0], "output": output}
    }
    with pytest.warns(UserWarning, match="do not reproduce the output"), record(module, adapters=adapters) as recording:
        module(torch.randn(1, 1, 5, 4))
    assert not recording
    assert "itself: adapter: the weights do not reproduce the output" in str(recording)


def test_generation_with_a_cache() -> None:
    """A token at a time looks as all at once."""
    transformers.logging.set_verbosity(transformers.logging.CRITICAL)
    torch.manual_seed(3)
    config = transformers.GPT2Config(
        vocab_size=30, n_embd=8, n_layer=2, n_head=2, n_positions=32, bos_token_id=1, eos_token_id=2
    )
    model = transformers.GPT2LMHeadModel(config).eval()
    prompt = torch.tensor([[5, 6, 7, 8]])
    with torch.no_grad(), record(model, weights=True) as steps:
        tokens = model.generate(prompt, max_new_tokens=5, min_new_tokens=5, do_sample=False, pad_token_id=2)
    with torch.no_grad(), record(model, weights=True) as whole:
        model(tokens[:, :-1])
    assert list(steps) == list(whole)
    for path in whole:
        assert steps[path].calls > 1
        torch.testing.assert_close(steps[path].weights, whole[path].weights, rtol=0, atol=1e-5)
        torch.testing.assert_close(steps[path].grid, whole[path].grid, rtol=0, atol=1e-5)


def test_multi_head_attention_with_weights_and_in_training() -> None:
    torch.manual_seed(4)
    layer = nn.MultiheadAttention(8, 2, batch_first=True)
    x = torch.randn(2, 5, 8)
    for training in (False, True):
        layer.train(training)
        expected, weights = layer(x, x, x, average_attn_weights=False)
        with record(layer, weights=True) as recording:
            output, _ = layer(x, x, x, average_attn_weights=False)
        assert torch.equal(output, expected)
        torch.testing.assert_close(recording[""].weights, weights.detach(), rtol=0, atol=1e-6)


@pytest.mark.parametrize("implementation", ["sdpa", "regard"])
@pytest.mark.parametrize("how", ["plain", "autocast", "bfloat16", "inference", "accelerated", "replaced"])
def test_no_bit_changes_however_a_model_runs(implementation: str, how: str) -> None:
    transformers.logging.set_verbosity(transformers.logging.CRITICAL)
    rg.integrate_transformers()
    torch.manual_seed(5)
    config = transformers.BertConfig(
        vocab_size=50, hidden_size=64, num_hidden_layers=2, num_attention_heads=4, intermediate_size=64
    )
    model = transformers.BertModel._from_config(config, attn_implementation=implementation).eval()
    tokens = torch.randint(0, 50, (2, 140))
    mask = (torch.arange(140) < torch.tensor([[140], [90]])).long()
    around: Any = {
        "autocast": lambda: torch.autocast("cpu", torch.bfloat16), "inference": torch.inference_mode,
        "replaced": rg.replace_sdpa,
    }.get(how, contextlib.nullcontext)  # fmt: skip
    if how == "bfloat16":
        model = model.bfloat16()
    if how == "accelerated":
        if implementation == "regard":
            pytest.skip("it is accelerated already")
        rg.accelerate(model)
    with torch.no_grad(), around():
        expected = model(tokens, attention_mask=mask).last_hidden_state
        with record(model) as recording:
            output = model(tokens, attention_mask=mask).last_hidden_state
    assert torch.equal(output, expected)
    assert [one.calls for one in recording.values()] == [1, 1]
    assert recording.not_captured == []
