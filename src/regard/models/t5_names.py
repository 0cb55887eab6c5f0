"""Conversion between T5 models and T5 checkpoints of the transformers package: fields and tensor names.

Source: Raffel et al. 2019, arXiv 1910.10683.
"""

from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor

from regard.attention.check import show
from regard.errors import UnsupportedError
from regard.models.published import (
    ACTIVATIONS,
    COMMON_IRRELEVANT,
    COMMON_ONLY,
    TOKENS,
    TRAINING,
    ConfigFields,
    TensorName,
    activation_of,
    check_supported,
    export_tensors,
    load_tensors,
    published_vocabulary,
    special_token_fields,
)
from regard.models.t5 import T5, T5Config

# Field of T5's config.json: field of T5Config.
FIELDS = {
    "d_model": "embed_dim",
    "d_kv": "head_dim",
    "d_ff": "ffn_dim",
    "num_heads": "num_heads",
    "num_layers": "encoder_layers",
    "num_decoder_layers": "decoder_layers",
    "dropout_rate": "dropout",
    "relative_attention_num_buckets": "num_buckets",
    "relative_attention_max_distance": "max_distance",
    "layer_norm_epsilon": "norm_eps",
}
# Supported values of fields of which others are refused.
SUPPORTED: dict[str, tuple[Any, ...]] = {
    **COMMON_ONLY,
    "is_encoder_decoder": (True, None),
    "is_decoder": (False, None),
}
CONFIG_FIELDS = ConfigFields(
    "T5",
    (
        *FIELDS, "vocab_size", "feed_forward_proj", "dense_act_fn", "is_gated_act", "tie_word_embeddings",
        "scale_decoder_outputs", "pad_token_id", "eos_token_id", "decoder_start_token_id", "model_type",
        "task_specific_params", "prefix",
    ),
    SUPPORTED,
    {
        **COMMON_IRRELEVANT,
        **dict.fromkeys(("initializer_factor", "classifier_dropout"), TRAINING),
        "bos_token_id": TOKENS,
        "n_positions": "length in pre-training; relative positions have no limit",
    },
    {
        "hidden_size": "d_model", "num_attention_heads": "num_heads", "num_hidden_layers": "num_layers",
        "head_dim": "d_kv",
    },
)  # fmt: skip
SHARED, OUTPUT = "shared.weight", "lm_head.weight"
ALIASES = ("encoder.embed_tokens.weight", "decoder.embed_tokens.weight")
# An unused table in old checkpoints.
IGNORED = ("decoder.block.0.layer.1.EncDecAttention.relative_attention_bias.weight",)
TABLE = "block.0.layer.0.SelfAttention.relative_attention_bias.weight"
ATTENTION = {"query_proj": "q", "key_proj": "k", "value_proj": "v", "output_proj": "o"}
PLAIN = {"expand": "wi", "contract": "wo"}
GATED = {"gate": "wi_0", "expand": "wi_1", "contract": "wo"}


def from_t5(config: Mapping[str, Any], state: Mapping[str, Tensor]) -> T5:
    """Build a T5 from a published checkpoint.

    Args:
        config: fields of config.json, a T5Config of the transformers package.
        state: tensors by name.

    Returns:
        The model, in evaluation mode.

    Raises:
        UnsupportedError: a field with an unsupported value.
        CheckpointError: tensors that are missing, unexpected or of other shapes.
    """
    check_supported("T5", config, SUPPORTED)
    sizes = {ours: config[theirs] for theirs, ours in FIELDS.items() if config.get(theirs) is not None}
    if "encoder_layers" in sizes:
        sizes.setdefault("decoder_layers", sizes["encoder_layers"])
    network, activation = _network(config)
    # Either field distinguishes v1.1 from v1.0. Without an output projection, a v1.1 checkpoint shares the embeddings.
    scaled = config.get("scale_decoder_outputs", config.get("tie_word_embeddings") is not False)
    if not isinstance(scaled, bool):
        raise UnsupportedError(f"T5: scale_decoder_outputs={show(scaled)} is not supported; expected True or False")
    pad = config.get("pad_token_id", 0)
    defaults = {"pad_token_id": pad, "decoder_start_token_id": pad, "eos_token_id": 1}
    vocabulary = published_vocabulary("T5", {**defaults, **config}, "decoder_start_token_id")
    t5_config = T5Config(
        vocabulary=vocabulary,
        network=network,
        activation=activation,
        tie_output=_tied(config, scaled, state),
        scale_output=scaled,
        **sizes,
    )
    same = dict.fromkeys((*ALIASES, OUTPUT) if t5_config.tie_output else ALIASES, SHARED)
    return load_tensors("T5", lambda: T5(t5_config), state, _names(t5_config), same=same, ignored=IGNORED)


def to_t5(model: T5) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Convert a T5 to a checkpoint of the transformers package.

    Args:
        model: the model.

    Returns:
        Fields of config.json, and tensors by name.
    """
    config = model.config
    published_names = {ours: theirs for theirs, ours in reversed(ACTIVATIONS.items())}
    activation, gated = published_names[config.activation], config.network == "gated"
    feed_forward = "gated-gelu" if gated and activation == "gelu_new" else f"{'gated-' if gated else ''}{activation}"
    fields = {theirs: getattr(config, ours) for theirs, ours in FIELDS.items()}
    fields |= {
        "model_type": "t5",
        "architectures": ["T5ForConditionalGeneration"],
        "feed_forward_proj": feed_forward,
        "dense_act_fn": activation,
        "is_gated_act": gated,
        "is_encoder_decoder": True,
        "tie_word_embeddings": config.tie_output,
        "scale_decoder_outputs": config.scale_output,
        "decoder_start_token_id": config.vocabulary.bos,
        **special_token_fields(config.vocabulary),
    }
    state = export_tensors(model, _names(config))
    for alias in (*ALIASES, OUTPUT) if config.tie_output else ALIASES:
        state[alias] = state[SHARED]
    return fields, state


def _tied(config: Mapping[str, Any], scaled: bool, state: Mapping[str, Tensor]) -> bool:
    """Whether the output projection shares the token embeddings.

    The field alone is not reliable: some checkpoints of v1.1 set it and hold both tensors.
    """
    if OUTPUT not in state or config.get("tie_word_embeddings") is False:
        return OUTPUT not in state
    return scaled or (SHARED in state and torch.equal(state[OUTPUT], state[SHARED]))


def _network(config: Mapping[str, Any]) -> tuple[Any, str]:
    """The fields `network` and `activation` of T5Config."""
    feed_forward = config.get("feed_forward_proj", "relu")
    head, _, tail = feed_forward.partition("-") if isinstance(feed_forward, str) else ("", "", "")
    if not head or (tail and head != "gated"):
        raise UnsupportedError(
            f"T5: feed_forward_proj={show(feed_forward)} is not supported; expected an activation, or gated-ACTIVATION"
        )
    # "gated-gelu" means the tanh approximation, which later files say in `dense_act_fn`.
    activation = "gelu_new" if feed_forward == "gated-gelu" else tail or head
    gated = config.get("is_gated_act", bool(tail))
    if not isinstance(gated, bool):
        raise UnsupportedError(f"T5: is_gated_act={show(gated)} is not supported; expected True or False")
    fields = {"dense_act_fn": activation, **config}
    return "gated" if gated else "plain", activation_of("T5", fields, "dense_act_fn")


def _names(config: T5Config) -> Iterator[TensorName]:
    """The names of all tensors."""
    yield TensorName("embedding.weight", SHARED)
    if not config.tie_output:
        yield TensorName("output.weight", OUTPUT)
    network = GATED if config.network == "gated" else PLAIN
    for side, layers in (("encoder", config.encoder_layers), ("decoder", config.decoder_layers)):
        yield TensorName(f"{side}_bias.table", f"{side}.{TABLE}")
        yield TensorName(f"{side}_norm.weight", f"{side}.final_layer_norm.weight")
        parts = [("self_attention", "around_self", "SelfAttention", ATTENTION)]
        if side == "decoder":
            parts.append(("cross_attention", "around_cross", "EncDecAttention", ATTENTION))
        parts.append(("feed_forward", "around_feed_forward", "DenseReluDense", network))
        for i in range(layers):
            for number, (part, residual, theirs, projections) in enumerate(parts):
                prefix = f"{side}.block.{i}.layer.{number}"
                yield TensorName(f"{side}.{i}.{residual}.norm.weight", f"{prefix}.layer_norm.weight")
                for a, b in projections.items():
                    yield TensorName(f"{side}.{i}.{part}.{a}.weight", f"{prefix}.{theirs}.{b}.weight")
