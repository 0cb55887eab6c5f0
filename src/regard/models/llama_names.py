"""Conversion between Llama models and Llama, Mistral and Qwen2 checkpoints: fields and tensor names."""

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
    ConfigFields,
    TensorName,
    activation_of,
    check_supported,
    export_tensors,
    load_tensors,
    published_vocabulary,
    special_token_fields,
)

# Field of published configurations: field of LlamaConfig.
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
# Defaults of fields that a config.json leaves out, by "model_type".
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
# Supported values of fields of which others are refused, including fields that the family's published code ignores.
NO_BIAS = {"attention_bias": (False, None), "mlp_bias": (False, None)}
NO_PART = {"partial_rotary_factor": (1, None)}
DECODER = {"is_encoder_decoder": (False, None), "rope_interleaved": (False, None)}
SUPPORTED: dict[str, dict[str, tuple[Any, ...]]] = {
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
FAMILY_FIELDS = {
    "llama": ("attention_bias", "mlp_bias"),
    "mistral": ("sliding_window",),
    "qwen2": ("sliding_window", "use_sliding_window", "max_window_layers", "layer_types"),
}
IRRELEVANT = {
    **COMMON_IRRELEVANT,
    "is_decoder": "a Llama always is",
    "is_llama_config": "metadata",
    "pretraining_tp": "order of summation only",
}
CONFIG_FIELDS = {
    family: ConfigFields(family, (*READ, *FAMILY_FIELDS[family]), SUPPORTED[family], IRRELEVANT) for family in SUPPORTED
}
FULL, WINDOW = "full_attention", "sliding_attention"
ACTIVATIONS = {"relu": "relu", "gelu": "gelu", "gelu-tanh": "gelu_pytorch_tanh", "swish": "silu"}  # regard: published
IGNORED = ("*rotary_emb.inv_freq",)  # computed
ATTENTION = {"query_proj": "q_proj", "key_proj": "k_proj", "value_proj": "v_proj", "output_proj": "o_proj"}
FEED_FORWARD = {"gate": "gate_proj", "expand": "up_proj", "contract": "down_proj"}
# By "rope_type": the class of scaling, and its arguments by the keys of "rope_parameters".
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
    """Build a Llama from a Llama, Mistral or Qwen2 checkpoint.

    Args:
        config: fields of config.json, a LlamaConfig, MistralConfig or Qwen2Config by its "model_type"; missing fields
            have its defaults.
        state: tensors by name, of a causal language model, or of its base model, whose names lack the prefix "model.".

    Returns:
        The model, in evaluation mode.

    Raises:
        UnsupportedError: a field with an unsupported value.
        CheckpointError: tensors that are missing, unexpected or of other shapes.
        ConfigError: a field that is out of range.
    """
    family = config.get("model_type", "llama")
    if family not in DEFAULTS:
        raise UnsupportedError(f"Llama: model_type={show(family)} is not supported; expected {', '.join(DEFAULTS)}")
    check_supported(family, config, SUPPORTED[family])
    config = {**DEFAULTS[family], **config}
    if is_integer(config["num_hidden_layers"]) and config["num_hidden_layers"] > len(state):
        raise CheckpointError(
            f"{family}: num_hidden_layers={config['num_hidden_layers']}, but there are only {len(state)} tensors"
        )
    fields = {ours: config[theirs] for theirs, ours in FIELDS.items()}
    fields["activation"] = activation_of(family, config, "hidden_act")
    fields["rotary_base"], fields["rotary_scaling"] = _rotary(family, config)
    fields["projection_bias"] = config["attention_bias"] if family == "llama" else family == "qwen2"
    fields["output_bias"] = config["attention_bias"] if family == "llama" else False
    fields["feed_forward_bias"] = config.get("mlp_bias", False)
    vocabulary, windows = published_vocabulary(family, config), _windows(family, config)
    llama_config = LlamaConfig(vocabulary=vocabulary, windows=windows, **fields)
    prefix = "model." if "model.embed_tokens.weight" in state else ""
    same = {"lm_head.weight": f"{prefix}embed_tokens.weight"} if llama_config.tie_output else {}
    names = _names(llama_config, prefix)
    return load_tensors(family, lambda: Llama(llama_config), state, names, same=same, ignored=IGNORED)


def to_llama(model: Llama) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Convert a Llama to a Llama, Mistral or Qwen2 checkpoint, by its biases and windows.

    Args:
        model: with the biases and windows of one of these families.

    Returns:
        Fields of config.json, and tensors by the names of the causal language model.

    Raises:
        UnsupportedError: a model that none of these layouts can represent.
    """
    config = model.config
    biases = (config.projection_bias, config.output_bias, config.feed_forward_bias)
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
            f"no published layout has projection_bias, output_bias, feed_forward_bias={biases} with "
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
        **special_token_fields(config.vocabulary),
        **own,
    }
    return fields, export_tensors(model, _names(config, "model."))


def _windows(family: str, config: Mapping[str, Any]) -> tuple[int | None, ...]:
    """The field `windows` of LlamaConfig, from a published configuration."""
    num_layers, window, types = (config.get(name) for name in ("num_hidden_layers", "sliding_window", "layer_types"))
    if family == "llama" or not is_integer(num_layers) or num_layers < 1:  # LlamaConfig refuses such num_layers
        return ()
    if family == "mistral":
        return () if window is None else (window,) * num_layers
    if types is None:
        first = config["max_window_layers"] if config["use_sliding_window"] else num_layers
        types = [WINDOW if i >= first else FULL for i in range(num_layers)]
    if not isinstance(types, list) or len(types) != num_layers or not {*types} <= {FULL, WINDOW}:
        raise UnsupportedError(
            f"{family}: layer_types={types!r:.80} is not supported; expected {FULL!r} or {WINDOW!r} for each of the "
            f"{num_layers} layers"
        )
    if WINDOW in types and window is None:
        raise UnsupportedError(
            f"{family}: sliding_window=None with {WINDOW!r} in layer_types; expected a number of keys"
        )
    return tuple(window if kind == WINDOW else None for kind in types) if WINDOW in types else ()


def _rotary(family: str, config: Mapping[str, Any]) -> tuple[Any, RotaryScaling | None]:
    """Base and scaling of rotary positions, from the fields of transformers 5 or of earlier versions."""
    parameters = config.get("rope_scaling") or config.get("rope_parameters") or {}
    if not isinstance(parameters, Mapping):
        raise UnsupportedError(f"{family}: rope_parameters={show(parameters)} is not supported; expected a dictionary")
    scaling = dict(parameters)
    base = scaling.pop("rope_theta", config["rope_theta"])
    kind = scaling.pop("rope_type", scaling.get("type", "default"))
    scaling.pop("type", None)
    check_supported(family, {"partial_rotary_factor": scaling.pop("partial_rotary_factor", None)}, NO_PART)
    if kind == "default":
        return base, None
    if kind not in SCALINGS:
        known = ", ".join(("default", *SCALINGS))
        raise UnsupportedError(f"{family}: rope_type={show(kind)} is not supported; expected {known}")
    scaling_class, keys = SCALINGS[kind]
    if "original_max_position_embeddings" in keys:
        scaling.setdefault("original_max_position_embeddings", config["max_position_embeddings"])
        if config.get("original_max_position_embeddings") is not None:
            scaling["original_max_position_embeddings"] = config["original_max_position_embeddings"]
    scaling = {name: x for name, x in scaling.items() if x is not None}
    for name in scaling:
        if name not in keys:
            raise UnsupportedError(f"{family}: {name}={show(scaling[name])} of rope_type={kind!r} is not supported")
    missing = [name for name, ours in keys.items() if name not in scaling and not hasattr(scaling_class, ours)]
    if missing:
        raise CheckpointError(f"{family}: rope_type={kind!r} needs {', '.join(missing)}; got {parameters!r:.100}")
    return base, scaling_class(**{keys[name]: x for name, x in scaling.items()})


def _rotary_fields(config: LlamaConfig) -> dict[str, Any]:
    """The published field "rope_parameters"."""
    for kind, (scaling_class, keys) in SCALINGS.items():
        if isinstance(config.rotary_scaling, scaling_class):
            scaling = {theirs: getattr(config.rotary_scaling, ours) for theirs, ours in keys.items()}
            return {"rope_type": kind, "rope_theta": config.rotary_base} | {
                name: x for name, x in scaling.items() if x is not None
            }
    return {"rope_type": "default", "rope_theta": config.rotary_base}


def _names(config: LlamaConfig, prefix: str) -> Iterator[TensorName]:
    """The names of all tensors."""
    yield TensorName("embedding.weight", f"{prefix}embed_tokens.weight")
    for i in range(config.num_layers):
        ours, theirs = f"layers.{i}.", f"{prefix}layers.{i}."
        yield TensorName(f"{ours}attention_norm.weight", f"{theirs}input_layernorm.weight")
        yield TensorName(f"{ours}feed_forward_norm.weight", f"{theirs}post_attention_layernorm.weight")
        for a, b in ATTENTION.items():
            yield TensorName(f"{ours}self_attention.{a}.weight", f"{theirs}self_attn.{b}.weight")
            if config.output_bias if a == "output_proj" else config.projection_bias:
                yield TensorName(f"{ours}self_attention.{a}.bias", f"{theirs}self_attn.{b}.bias")
        for a, b in FEED_FORWARD.items():
            for kind in ("weight", "bias")[: 1 + config.feed_forward_bias]:
                yield TensorName(f"{ours}feed_forward.{a}.{kind}", f"{theirs}mlp.{b}.{kind}")
    yield TensorName("norm.weight", f"{prefix}norm.weight")
    if not config.tie_output:
        yield TensorName("output.weight", "lm_head.weight")
