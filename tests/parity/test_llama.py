"""Llama, Mistral and Qwen2 against the transformers package's: hidden vectors, logits, gradients, decoded tokens.

Theirs computes norms and rotary positions in float32 whatever the model's precision. For the comparison in float64, the
name `float32` means float64 in their modules.
"""

import importlib

import pytest
import torch

from regard.models.llama_names import from_llama, to_llama
from tests.parity.language_models import check_gradients, check_greedy, check_outputs, check_same, randomized

transformers = pytest.importorskip("transformers")
THEIRS = [
    importlib.import_module(f"transformers.{name}")
    for name in (
        "modeling_rope_utils", "models.llama.modeling_llama", "models.mistral.modeling_mistral",
        "models.qwen2.modeling_qwen2",
    )
]  # fmt: skip

CLASSES = {
    "llama": (transformers.LlamaConfig, transformers.LlamaForCausalLM),
    "mistral": (transformers.MistralConfig, transformers.MistralForCausalLM),
    "qwen2": (transformers.Qwen2Config, transformers.Qwen2ForCausalLM),
}
SIZES = {
    "vocab_size": 53, "hidden_size": 24, "intermediate_size": 29, "num_hidden_layers": 3, "num_attention_heads": 4,
    "num_key_value_heads": 2, "max_position_embeddings": 41, "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0,
}  # fmt: skip
LLAMA3 = {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0}
YARN = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 16}
VARIANTS = {
    "llama": ("llama", {}),
    "llama-all-heads": ("llama", {"num_key_value_heads": None, "rms_norm_eps": 1e-3}),
    "llama-one-head": ("llama", {"num_key_value_heads": 1, "head_dim": 10, "hidden_act": "gelu_pytorch_tanh"}),
    "llama-biases": ("llama", {"attention_bias": True, "mlp_bias": True, "tie_word_embeddings": True}),
    "llama-base": ("llama", {"rope_parameters": {"rope_type": "default", "rope_theta": 500.0}}),
    "llama-linear": ("llama", {"rope_parameters": {"rope_type": "linear", "factor": 2.5, "rope_theta": 100.0}}),
    "llama-llama3": (
        "llama",
        {"head_dim": 14, "rope_parameters": {**LLAMA3, "rope_theta": 50.0, "original_max_position_embeddings": 32}},
    ),
    "llama-yarn": ("llama", {"head_dim": 16, "rope_parameters": {**YARN, "rope_theta": 50.0}}),
    "llama-yarn-settings": (
        "llama",
        {
            "head_dim": 16,
            "rope_parameters": {
                **YARN, "rope_theta": 50.0, "beta_fast": 8.0, "beta_slow": 2.0, "attention_factor": 0.75,
                "truncate": False,
            },
        },
    ),
    "mistral-window": ("mistral", {"sliding_window": 3}),
    "mistral-dense": ("mistral", {"sliding_window": None, "head_dim": 8}),
    "qwen2": ("qwen2", {"hidden_act": "relu"}),
    "qwen2-windows": ("qwen2", {"use_sliding_window": True, "sliding_window": 4, "max_window_layers": 1}),
    "qwen2-layers": (
        "qwen2",
        {
            "use_sliding_window": True, "sliding_window": 2, "tie_word_embeddings": True,
            "layer_types": ["sliding_attention", "full_attention", "sliding_attention"],
        },
    ),
}  # fmt: skip


class Wide:
    """torch, where float32 is float64."""

    float32 = float = torch.float64

    def __getattr__(self, name):
        return getattr(torch, name)


@pytest.fixture(autouse=True)
def _in_float64(request, monkeypatch):
    if "dtype" in request.fixturenames and request.getfixturevalue("dtype") == torch.float64:
        for module in THEIRS:
            monkeypatch.setattr(module, "torch", Wide())


def theirs_of(variant, dtype, **changes):
    """A random model of theirs."""
    family, fields = VARIANTS[variant]
    config, model = CLASSES[family]
    return randomized(model, config(**{**SIZES, **fields, **changes}), dtype)


def ours_of(theirs):
    return from_llama(theirs.config.to_dict(), theirs.state_dict())


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("variant", VARIANTS)
def test_outputs_and_gradients_are_theirs(variant, dtype):
    theirs = theirs_of(variant, dtype)
    ours = ours_of(theirs)
    check_outputs(ours, theirs)
    check_gradients(ours, theirs, to_llama)


@pytest.mark.parametrize("variant", ["llama-biases", "llama-yarn", "mistral-window", "qwen2-layers"])
def test_greedy_tokens_are_theirs(variant):
    theirs = theirs_of(variant, torch.float32)
    check_greedy(ours_of(theirs), theirs)


@pytest.mark.parametrize("variant", VARIANTS)
def test_weights_go_back(variant):
    theirs = theirs_of(variant, torch.float32)
    fields, state = to_llama(ours_of(theirs))
    config, model = CLASSES[fields["model_type"]]
    assert fields["model_type"] == VARIANTS[variant][0] or variant == "mistral-dense"  # which is a Llama
    check_same(model(config(**fields)), state, theirs)


@pytest.mark.parametrize(
    "old",
    [
        {"rope_theta": 500.0},
        {"rope_theta": 500.0, "rope_scaling": {"type": "linear", "factor": 2.5}},
        {"rope_theta": 500.0, "rope_scaling": {**LLAMA3, "original_max_position_embeddings": 16}},
        {"rope_scaling": None},
    ],
)
def test_fields_of_older_files(old):
    theirs = theirs_of("llama", torch.float32, **old)
    fields = {**SIZES, "model_type": "llama", **old}
    check_outputs(from_llama(fields, theirs.state_dict()), theirs)


def test_names_of_the_model_within():
    theirs = theirs_of("llama-biases", torch.float32)
    state = {name.removeprefix("model."): x for name, x in theirs.state_dict().items() if name != "lm_head.weight"}
    check_outputs(from_llama(theirs.config.to_dict(), state), theirs)
