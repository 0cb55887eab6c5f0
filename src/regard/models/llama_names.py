"""Llama's, Mistral's and Qwen2's configurations and tensors by the names of the transformers package, and back."""

from collections.abc import Iterator, Mapping
from typing import Any

from torch import Tensor

from regard.attention.check import is_integer, show
from regard.errors import CheckpointError, UnsupportedError
from regard.layers.rotary_scaling import LinearScaling, Llama3Scaling, RotaryScaling, YarnScaling
from regard.models.llama import Llama, LlamaConfig
from regard.models.published import (
    COMMON_IRRELEVANT,
    COMMON_ONLY,
    Fields,
    Named,
    activation_of,
    check_only,
    published_marks,
    published_vocabulary,
    read_named,
    write_named,
)

# Field of the published configurations, field of LlamaConfig.
FIELDS = {
    "hidden_size": "embed_dim",
    "num_attention_heads": "num_heads",
    "num_key_value_heads": "num_kv_heads",
    "head_dim": "head_dim",
    "intermediate_size": "ffn_dim",
    "num_hidden_layers": "num_layers",
    "max_position_embeddings": "max_length",
    "attention_dropout": "attention_dropout",
    "rms_norm_eps": "norm_eps",
    "tie_word_embeddings": "tie_output",
}
COMMON: dict[str, Any] = {
    "vocab_size": 32000, "hidden_size": 4096, "num_attention_heads": 32, "num_key_value_heads": None, "head_dim": None,
    "num_hidden_layers": 32, "attention_dropout": 0.0, "rms_norm_eps": 1e-6, "tie_word_embeddings": False,
    "hidden_act": "silu", "bos_token_id": 1, "eos_token_id": 2, "rope_theta": 10_000.0,
}  # fmt: skip
# What fields are that a config.json leaves out, by "model_type".
DEFAULTS: dict[str, dict[str, Any]] = {
    "llama": {**COMMON, "intermediate_size": 11008, "max_position_embeddings": 2048, "attention_bias": False},
    "mistral": {
        **COMMON, "intermediate_size": 14336, "max_position_embeddings": 131072, "num_key_value_heads": 8,
        "sliding_window": 4096,
    },
    "qwen2": {
        **COMMON, "vocab_size": 151936, "intermediate_size": 22016, "max_position_embeddings": 32768,
        "num_key_value_heads": 32, "sliding_window": 4096, "use_sliding_window": False, "max_window_layers": 28,
        "bos_token_id": None, "eos_token_id": None,
    },
}  # fmt: skip
# Fields that change the mathematics, or would if the family's published code read them, and what is supported.
NO_BIAS = {"attention_bias": (False, None), "mlp_bias": (False, None)}
NO_PART = {"partial_rotary_factor": (1, None)}
DECODER = {"is_encoder_decoder": (False, None), "rope_interleaved": (False, None)}
ONLY: dict[str, dict[str, tuple[Any, ...]]] = {
    "llama": {**COMMON_ONLY, **DECODER, **NO_PART, "sliding_window": (None,), "layer_types": (None,)},
    "mistral": {**COMMON_ONLY, **DECODER, **NO_PART, **NO_BIAS, "layer_types": (None,)},
    "qwen2": {
        **COMMON_ONLY, **DECODER, **NO_PART, "attention_bias": (True, None), "mlp_bias": (False, None),
        "use_mrope": (False, None),
    },
}  # fmt: skip
READ = (
    *FIELDS, "hidden_act", "vocab_size", "bos_token_id", "eos_token_id", "pad_token_id", "model_type", "rope_theta",
    "rope_scaling", "rope_parameters", "original_max_position_embeddings", "task_specific_params",
)  # fmt: skip
OWN = {
    "llama": ("attention_bias", "mlp_bias"),
    "mistral": ("sliding_window",),
    "qwen2": ("sliding_window", "use_sliding_window", "max_window_layers", "layer_types"),
}
IRRELEVANT = {
    **COMMON_IRRELEVANT,
    "is_decoder": "the model is one",
    "is_llama_config": "a note",
    "pretraining_tp": "of the order in which sums are taken",
}
KNOWN = {family: Fields(family, (*READ, *OWN[family]), ONLY[family], IRRELEVANT) for family in ONLY}
FULL, WINDOW = "full_attention", "sliding_attention"
ACTIVATIONS = {"relu": "relu", "gelu": "gelu", "gelu-tanh": "gelu_pytorch_tanh", "swish": "silu"}  # ours, theirs
IGNORED = ("*rotary_emb.inv_freq",)  # computed
ATTENTION = {"query_proj": "q_proj", "key_proj": "k_proj", "value_proj": "v_proj", "output_proj": "o_proj"}
FEED_FORWARD = {"gate": "gate_proj", "expand": "up_proj", "contract": "down_proj"}
# Keys of rotary parameters by kind, with the arguments of the scaling that they are.
SCALINGS: dict[str, tuple[type[RotaryScaling], dict[str, str]]] = {
    "linear": (LinearScaling, {"factor": "factor"}),
    "llama3": (
        Llama3Scaling,
        {
            "factor": "factor", "low_freq_factor": "low", "high_freq_factor": "high",
            "original_max_position_embeddings": "length",
        },
    ),
    "yarn": (
        YarnScaling,
        {
            "factor": "factor", "original_max_position_embeddings": "length", "beta_fast": "fast", "beta_slow": "slow",
            "attention_factor": "gain", "truncate": "whole",
        },
    ),
}  # fmt: skip


def from_llama(config: Mapping[str, Any], state: Mapping[str, Tensor]) -> Llama:
    """The Llama of a published configuration and its weights.

    Args:
        config: fields of a LlamaConfig, MistralConfig or Qwen2Config, as its config.json has them; "model_type" says
            which, and what is missing has the published value.
        state: the tensors of a causal language model by name; or of the model within, whose names lack "model." before
            them.

    Returns:
        The model, in evaluation mode.

    Raises:
        UnsupportedError: a field that says something this model does not compute.
        CheckpointError: tensors that are missing, unknown or of other shapes.
        ConfigError: a field that is out of range.
    """
    family = config.get("model_type", "llama")
    if family not in DEFAULTS:
        raise UnsupportedError(f"Llama: model_type={show(family)} is not supported; expected {', '.join(DEFAULTS)}")
    check_only(family, config, ONLY[family])
    given = {**DEFAULTS[family], **config}
    if is_integer(given["num_hidden_layers"]) and given["num_hidden_layers"] > len(state):
        raise CheckpointError(f"{family}: num_hidden_layers={given['num_hidden_layers']} in {len(state)} tensors")
    fields = {ours: given[theirs] for theirs, ours in FIELDS.items()}
    fields["activation"] = activation_of(family, given, "hidden_act")
    fields["rotary_base"], fields["rotary_scaling"] = _rotary(family, given)
    fields["projection_bias"] = given["attention_bias"] if family == "llama" else family == "qwen2"
    fields["output_bias"] = given["attention_bias"] if family == "llama" else False
    fields["feed_forward_bias"] = given.get("mlp_bias", False)
    made = LlamaConfig(vocabulary=published_vocabulary(family, given), windows=_windows(family, given), **fields)
    prefix = "model." if "model.embed_tokens.weight" in state else ""
    same = {"lm_head.weight": f"{prefix}embed_tokens.weight"} if made.tie_output else {}
    return read_named(family, lambda: Llama(made), state, _names(made, prefix), same=same, ignored=IGNORED)


def to_llama(model: Llama) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """A Llama's configuration and weights in the transformers package's layout.

    Args:
        model: one that is a Llama, a Mistral or a Qwen2 by its biases and windows.

    Returns:
        Fields of the configuration, and tensors by the names of its causal language model.

    Raises:
        UnsupportedError: a model that is none of them.
    """
    config = model.config
    words, biases = config.vocabulary, (config.projection_bias, config.output_bias, config.feed_forward_bias)
    windows = {*config.windows}
    if windows <= {None} and config.projection_bias == config.output_bias:
        family, own = "llama", {"attention_bias": config.output_bias, "mlp_bias": config.feed_forward_bias}
    elif not any(biases) and len(windows) == 1:
        family, own = "mistral", {"sliding_window": config.windows[0]}
    elif biases == (True, False, False) and len(windows - {None}) <= 1:
        types = [FULL if window is None else WINDOW for window in config.windows]
        family = "qwen2"
        own = {"use_sliding_window": WINDOW in types, "sliding_window": max(windows - {None}, default=None)}
        own |= {"layer_types": types or [FULL] * config.num_layers}
    else:
        raise UnsupportedError(
            f"no published layout has biases {biases} of projections, output and feed-forward network with "
            f"windows={config.windows!r:.60}; expected those of a Llama, a Mistral or a Qwen2"
        )
    if config.activation not in ACTIVATIONS:
        raise UnsupportedError(f"{family} has no activation={config.activation!r}; known: {', '.join(ACTIVATIONS)}")
    fields = {theirs: getattr(config, ours) for theirs, ours in FIELDS.items()}
    fields |= {
        "model_type": family,
        "architectures": [f"{family.capitalize()}ForCausalLM"],
        "hidden_act": ACTIVATIONS[config.activation],
        "num_key_value_heads": config.num_heads if config.num_kv_heads is None else config.num_kv_heads,
        "head_dim": config.embed_dim // config.num_heads if config.head_dim is None else config.head_dim,
        "rope_theta": config.rotary_base,
        "rope_parameters": _rotary_fields(config),
        **published_marks(words),
        **own,
    }
    return fields, write_named(model, _names(config, "model."))


def _windows(family: str, given: Mapping[str, Any]) -> tuple[int | None, ...]:
    """How many keys a query sees in each layer; empty for all in all."""
    layers, window, types = (given.get(name) for name in ("num_hidden_layers", "sliding_window", "layer_types"))
    if family == "llama" or not is_integer(layers) or layers < 1:  # which LlamaConfig refuses
        return ()
    if family == "mistral":
        return () if window is None else (window,) * layers
    if types is None:
        first = given["max_window_layers"] if given["use_sliding_window"] else layers
        types = [WINDOW if i >= first else FULL for i in range(layers)]
    if not isinstance(types, list) or len(types) != layers or not {*types} <= {FULL, WINDOW}:
        raise UnsupportedError(
            f"{family}: layer_types={types!r:.80} is not supported; expected {FULL!r} or {WINDOW!r} for each of the "
            f"{layers} layers"
        )
    if WINDOW in types and window is None:
        raise UnsupportedError(
            f"{family}: layer_types has {WINDOW!r}, and sliding_window=None; expected a number of keys"
        )
    return tuple(window if kind == WINDOW else None for kind in types) if WINDOW in types else ()


def _rotary(family: str, given: Mapping[str, Any]) -> tuple[Any, RotaryScaling | None]:
    """Base and scaling of the positions, from the fields of the package's version 5 or of those before."""
    parameters = given.get("rope_scaling") or given.get("rope_parameters") or {}
    if not isinstance(parameters, Mapping):
        raise UnsupportedError(f"{family}: rope_parameters={show(parameters)} is not supported; expected a dictionary")
    left = dict(parameters)
    base = left.pop("rope_theta", given["rope_theta"])
    kind = left.pop("rope_type", left.get("type", "default"))
    left.pop("type", None)
    check_only(family, {"partial_rotary_factor": left.pop("partial_rotary_factor", None)}, NO_PART)
    if kind == "default":
        return base, None
    if kind not in SCALINGS:
        known = ", ".join(("default", *SCALINGS))
        raise UnsupportedError(f"{family}: rope_type={show(kind)} is not supported; expected {known}")
    made, keys = SCALINGS[kind]
    if "original_max_position_embeddings" in keys:
        left.setdefault("original_max_position_embeddings", given["max_position_embeddings"])
        if given.get("original_max_position_embeddings") is not None:
            left["original_max_position_embeddings"] = given["original_max_position_embeddings"]
    left = {name: x for name, x in left.items() if x is not None}
    for name in left:
        if name not in keys:
            raise UnsupportedError(f"{family}: {name}={show(left[name])} of rope_type={kind!r} is not supported")
    missing = [name for name, ours in keys.items() if name not in left and not hasattr(made, ours)]
    if missing:
        raise CheckpointError(f"{family}: rope_type={kind!r} needs {', '.join(missing)}; got {parameters!r:.100}")
    return base, made(**{keys[name]: x for name, x in left.items()})


def _rotary_fields(config: LlamaConfig) -> dict[str, Any]:
    for kind, (made, keys) in SCALINGS.items():
        if isinstance(config.rotary_scaling, made):
            given = {theirs: getattr(config.rotary_scaling, ours) for theirs, ours in keys.items()}
            return {"rope_type": kind, "rope_theta": config.rotary_base} | {
                name: x for name, x in given.items() if x is not None
            }
    return {"rope_type": "default", "rope_theta": config.rotary_base}


def _names(config: LlamaConfig, prefix: str) -> Iterator[Named]:
    """Where each tensor stands."""
    yield Named("embedding.weight", f"{prefix}embed_tokens.weight")
    for i in range(config.num_layers):
        ours, theirs = f"layers.{i}.", f"{prefix}layers.{i}."
        yield Named(f"{ours}attention_norm.weight", f"{theirs}input_layernorm.weight")
        yield Named(f"{ours}feed_forward_norm.weight", f"{theirs}post_attention_layernorm.weight")
        for a, b in ATTENTION.items():
            yield Named(f"{ours}self_attention.{a}.weight", f"{theirs}self_attn.{b}.weight")
            if config.output_bias if a == "output_proj" else config.projection_bias:
                yield Named(f"{ours}self_attention.{a}.bias", f"{theirs}self_attn.{b}.bias")
        for a, b in FEED_FORWARD.items():
            for kind in ("weight", "bias")[: 1 + config.feed_forward_bias]:
                yield Named(f"{ours}feed_forward.{a}.{kind}", f"{theirs}mlp.{b}.{kind}")
    yield Named("norm.weight", f"{prefix}norm.weight")
    if not config.tie_output:
        yield Named("output.weight", "lm_head.weight")
