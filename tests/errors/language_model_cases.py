"""Misuses of language models, of their published names, and of rotary scaling: see `cases.py`."""

from collections.abc import Callable
from typing import Any

import torch

import regard as rg
from regard.decode.generate import generate
from regard.errors import CheckpointError, ConfigError, DataError, ShapeError, UnsupportedError
from regard.layers.positions import Rotary
from regard.layers.rotary_scaling import LinearScaling, Llama3Scaling, RotaryScaling, YarnScaling
from regard.models.gpt import GPT, GPTConfig, from_gpt2, to_gpt2
from regard.models.llama import Llama, LlamaConfig
from regard.models.llama_names import from_llama, to_llama
from regard.models.registry import config_from_plain
from tests.errors.cases import Case

WORDS = rg.Vocabulary(size=9)
FULL = "full_attention"


def gpt(**changes: Any) -> GPT:
    return GPT(
        GPTConfig(**{"vocabulary": WORDS, "embed_dim": 4, "num_heads": 2, "num_layers": 1, "max_length": 5, **changes})
    )


def gpt2(**changes: Any) -> Callable[[], object]:
    fields, state = to_gpt2(gpt())
    return lambda: from_gpt2({**fields, **changes}, state)


def llama(**changes: Any) -> Llama:
    sizes = {"embed_dim": 4, "num_heads": 2, "ffn_dim": 4, "num_layers": 1}
    return Llama(LlamaConfig(**{"vocabulary": WORDS, **sizes, **changes}))


def published(**changes: Any) -> Callable[[], object]:
    fields, state = to_llama(llama())
    return lambda: from_llama({**fields, **changes}, state)


def rope(**parameters: Any) -> Callable[[], object]:
    return published(rope_parameters=parameters)


def qwen2(**changes: Any) -> Callable[[], object]:
    fields, state = to_llama(llama(projection_bias=True))
    return lambda: from_llama({**fields, **changes}, state)


CASES: list[Case] = [
    (
        "gpt-size",
        lambda: GPTConfig.from_preset("gpt2-x", WORDS),
        ConfigError,
        "no preset 'gpt2-x'; did you mean 'gpt2-xl'?",
    ),
    ("gpt-band", lambda: gpt(band=0), ConfigError, "GPTConfig: band=0 must be an integer >= 1"),
    ("gpt-activation", lambda: gpt(activation="gelu_new"), ConfigError, "unknown activation 'gelu_new'"),
    (
        "gpt-too-long",
        lambda: gpt()(torch.ones(1, 6, dtype=torch.int64)),
        ShapeError,
        "the tokens have positions 0 to 5, but the layer has vectors for 0 to 4",
    ),
    (
        "gpt-tokens",
        lambda: gpt()([[1, 2]]),
        ShapeError,
        "tokens is [[1, 2]]; expected token ids, integers of shape (batch, length)",
    ),
    (
        "gpt-lengths",
        lambda: gpt()(torch.ones(2, 3, dtype=torch.int64), torch.tensor([3])),
        ShapeError,
        "lengths is Tensor(torch.int64, (1,)); expected integers of shape (2,)",
    ),
    (
        "gpt-prompt-lengths",
        lambda: gpt().prefill(torch.ones(2, 3, dtype=torch.int64), torch.tensor([3, 2])),
        ShapeError,
        "lengths has [2]; expected prompts of equal length in a batch, 3 tokens",
    ),
    (
        "gpt-prompt",
        lambda: generate(gpt(), [[3], [3] * 6]),
        DataError,
        "sources[1] has 6 tokens, and the model has 5 positions; shorten the source",
    ),
    (
        "gpt-prompt-token",
        lambda: generate(gpt(), [[9]]),
        DataError,
        "sources[0] has the token id 9; expected ids from 0 to 8",
    ),
    (
        "generate-on-token",
        lambda: generate(gpt(), [[3]], search=rg.Beam(2), on_token=lambda number, token: False),
        ConfigError,
        "on_token with search=Beam(size=2, length_penalty=1.0, n_best=1",
    ),
    (
        "gpt2-field",
        gpt2(add_cross_attention=True),
        UnsupportedError,
        "GPT-2: add_cross_attention=True is not supported",
    ),
    ("gpt2-activation", gpt2(activation_function="laplace"), UnsupportedError, "activation_function='laplace' is not"),
    ("gpt2-type", gpt2(n_embd="wide"), ConfigError, "GPTConfig: embed_dim='wide' must be an integer >= 1"),
    ("gpt2-heads", gpt2(n_head=3), CheckpointError, "embed_dim=4 is not a multiple of num_heads=3"),
    (
        "gpt2-shape",
        gpt2(n_inner=5),
        CheckpointError,
        "GPT-2: the tensors do not match the configuration: of another shape or dtype: transformer.h.0.mlp.c_fc.weight",
    ),
    ("gpt2-layers", gpt2(n_layer=2), CheckpointError, "missing: transformer.h.1.attn.c_attn.weight"),
    (
        "gpt2-vocabulary",
        gpt2(eos_token_id=9),
        CheckpointError,
        "GPT-2: vocab_size=9, eos_token_id=9, bos_token_id=1, pad_token_id=0; expected a number of tokens and token",
    ),
    (
        "to-gpt2-band",
        lambda: to_gpt2(gpt(band=2)),
        UnsupportedError,
        "GPT-2 has no banded layers; this model has band=2",
    ),
    (
        "to-gpt2-heads",
        lambda: to_gpt2(gpt(head_dim=3)),
        UnsupportedError,
        "GPT-2 has heads of size embed_dim / num_heads = 2; this model has head_dim=3",
    ),
    (
        "to-gpt2-activation",
        lambda: to_gpt2(gpt(activation="mish")),
        UnsupportedError,
        "GPT-2 has no activation='mish'; known: relu, gelu, gelu-tanh, swish",
    ),
    (
        "llama-size",
        lambda: LlamaConfig.from_preset("llama-7", WORDS),
        ConfigError,
        "'llama-7'; did you mean 'llama-7b'?",
    ),
    (
        "llama-windows",
        lambda: llama(windows=(3, 3)),
        ConfigError,
        "windows=(3, 3) must be a number of keys >= 1, or None",
    ),
    (
        "llama-type",
        published(model_type="phi"),
        UnsupportedError,
        "model_type='phi' is not supported; expected llama, m",
    ),
    ("llama-window", published(sliding_window=3), UnsupportedError, "llama: sliding_window=3 is not supported"),
    ("llama-partial", published(partial_rotary_factor=0.5), UnsupportedError, "partial_rotary_factor=0.5 is not"),
    (
        "llama-layers",
        published(num_hidden_layers=10**15),
        CheckpointError,
        "llama: num_hidden_layers=1000000000000000, but there are only 12 tensors",
    ),
    (
        "mistral-biases",
        published(model_type="mistral", mlp_bias=True),
        UnsupportedError,
        "mlp_bias=True is not supported",
    ),
    (
        "qwen2-types",
        qwen2(layer_types=["chunked_attention"]),
        UnsupportedError,
        "layer_types=['chunked_attention'] is not supported; expected 'full_attention' or 'sliding_attention'",
    ),
    (
        "qwen2-window",
        qwen2(layer_types=["sliding_attention"], sliding_window=None),
        UnsupportedError,
        "qwen2: sliding_window=None with 'sliding_attention' in layer_types; expected a number of keys",
    ),
    (
        "to-llama-biases",
        lambda: to_llama(llama(output_bias=True)),
        UnsupportedError,
        "no published layout has projection_bias, output_bias, feed_forward_bias=(False, True, False) with windows=()",
    ),
    (
        "to-llama-activation",
        lambda: to_llama(llama(activation="mish")),
        UnsupportedError,
        "llama has no activation='mish'",
    ),
    (
        "rope-plain",
        published(rope_parameters=[1]),
        UnsupportedError,
        "rope_parameters=[1] is not supported; expected a",
    ),
    (
        "rope-kind",
        rope(rope_type="longrope"),
        UnsupportedError,
        "rope_type='longrope' is not supported; expected default, linear, llama3, yarn",
    ),
    ("rope-key", rope(rope_type="yarn", factor=2.0, mscale=0.5), UnsupportedError, "mscale=0.5 of rope_type='yarn' is"),
    (
        "rope-missing",
        rope(rope_type="llama3", factor=2.0),
        CheckpointError,
        "needs low_freq_factor, high_freq_factor; got",
    ),
    (
        "rope-value",
        rope(rope_type="linear", factor=-1),
        ConfigError,
        "LinearScaling: factor=-1 must be a positive number",
    ),
    (
        "scaling-bool",
        lambda: YarnScaling(factor=2.0, length=16, whole=1),
        ConfigError,
        "YarnScaling: whole=1 must be True or False",
    ),
    (
        "scaling-llama3",
        lambda: Llama3Scaling(factor=2.0, low=4.0, high=4.0, length=16),
        ConfigError,
        "Llama3Scaling: high=4.0 must be above low=4.0",
    ),
    (
        "scaling-kind",
        lambda: RotaryScaling.from_plain({"kind": "lineal", "factor": 2.0}),
        ConfigError,
        "unknown kind 'lineal'; did you mean 'linear'?",
    ),
    (
        "scaling-fields",
        lambda: RotaryScaling.from_plain({"kind": "linear", "size": 2.0}),
        ConfigError,
        "rotary_scaling: linear has factor; got size",
    ),
    (
        "rotary-scaled-base",
        lambda: Rotary(4, base=1.0, scaling=LinearScaling(factor=2.0)),
        ConfigError,
        "Rotary: base=1.0 with scaling=LinearScaling(factor=2.0) must be above 1",
    ),
    (
        "vocabulary-more",
        lambda: config_from_plain("gpt", {"vocabulary": {"size": 9, "more_eos": 3}}),
        ConfigError,
        "vocabulary: more_eos=3 must be a list of token ids",
    ),
    (
        "vocabulary-more-room",
        lambda: config_from_plain("gpt", {"vocabulary": {"size": 9, "more_eos": [9]}}),
        ConfigError,
        "vocabulary: pad=0, bos=1, eos=2, more_eos[0]=9; expected token ids below size=9",
    ),
]
