"""Conversion between Transformer models and Marian checkpoints of the transformers package.

Source: Junczys-Dowmunt et al. 2018, "Marian: Fast Neural Machine Translation in C++", arXiv 1804.00344.
"""

from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor

from regard.errors import UnsupportedError
from regard.layers.attention_config import AttentionConfig
from regard.layers.transformer_layer import Norm
from regard.models import encoder_decoder_names
from regard.models.encoder_decoder_names import check_equal, layer_names
from regard.models.published import (
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
    published_activation,
    published_vocabulary,
    special_token_fields,
    weight_and_bias,
)
from regard.models.transformer import Transformer, TransformerConfig

# Field of MarianConfig: field of TransformerConfig.
SIZES = {
    "d_model": "embed_dim",
    "encoder_layers": "encoder_layers",
    "decoder_layers": "decoder_layers",
    "encoder_attention_heads": "num_heads",
    "encoder_ffn_dim": "ffn_dim",
    "dropout": "dropout",
    "activation_function": "activation",
    "scale_embedding": "scale_embedding",
}
# Supported values of fields of which others are refused.
SUPPORTED: dict[str, tuple[Any, ...]] = {
    **COMMON_ONLY,
    "is_decoder": (False, None),
    "is_encoder_decoder": (True, None),
    "share_encoder_decoder_embeddings": (True,),
    "tie_word_embeddings": (True,),
    "normalize_before": (False,),
    "normalize_embedding": (False,),
    "add_final_layer_norm": (False,),
    "static_position_embeddings": (True,),
    "add_bias_logits": (False,),
}
# Fields that must equal others.
EQUAL = {**encoder_decoder_names.EQUAL, "decoder_vocab_size": "vocab_size"}
REQUIRED = ("vocab_size", "pad_token_id", "decoder_start_token_id")
# Defaults of fields that a config.json leaves out.
DEFAULTS: dict[str, Any] = {
    "d_model": 1024, "encoder_layers": 12, "decoder_layers": 12, "encoder_attention_heads": 16, "encoder_ffn_dim": 4096,
    "dropout": 0.1, "activation_function": "gelu", "scale_embedding": False, "eos_token_id": 0,
}  # fmt: skip
CONFIG_FIELDS = ConfigFields(
    "Marian",
    (
        *SIZES, *EQUAL, "vocab_size", "pad_token_id", "eos_token_id", "decoder_start_token_id", "model_type",
        "task_specific_params", "prefix",
    ),
    SUPPORTED,
    {
        **COMMON_IRRELEVANT,
        **dict.fromkeys(
            (
                "attention_dropout", "activation_dropout", "encoder_layerdrop", "decoder_layerdrop", "init_std",
                "classif_dropout", "classifier_dropout",
            ),
            TRAINING,
        ),
        "bos_token_id": TOKENS,
        "max_position_embeddings": "positions are computed, for any length",
        "extra_pos_embeddings": "learned positions only",
    },
    {"num_attention_heads": "encoder_attention_heads", "hidden_size": "d_model", "num_hidden_layers": "encoder_layers"},
)  # fmt: skip
# Further names of the shared embedding.
ALIASES = ("model.encoder.embed_tokens.weight", "model.decoder.embed_tokens.weight", "lm_head.weight")
IGNORED = ("model.*.embed_positions.weight",)  # computed


def from_marian(config: Mapping[str, Any], state: Mapping[str, Tensor]) -> Transformer:
    """Build a Transformer from a Marian checkpoint.

    Args:
        config: fields of config.json, a MarianConfig.
        state: tensors by name.

    Returns:
        The model, in evaluation mode.

    Raises:
        UnsupportedError: a field with an unsupported value.
        CheckpointError: tensors that are missing or of other shapes.
    """
    return read_layout(CONFIG_FIELDS, {**DEFAULTS, **config}, state, norm="post")


def to_marian(model: Transformer) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Convert a Transformer to a Marian checkpoint.

    Interleaved sinusoidal positions are converted to Marian's by permuting the features of all hidden states, which
    changes no output.

    Args:
        model: post-norm, with sinusoidal positions and default attention.

    Returns:
        Fields of config.json, a MarianConfig, and tensors by name.

    Raises:
        UnsupportedError: a model that Marian's layout cannot represent.
    """
    fields, state = write_layout(CONFIG_FIELDS, model, norm="post")
    fields |= {
        "model_type": "marian",
        "architectures": ["MarianMTModel"],
        "decoder_vocab_size": fields["vocab_size"],
        "share_encoder_decoder_embeddings": True,
        "static_position_embeddings": True,
    }
    return fields, state


def read_layout(
    known: ConfigFields, config: Mapping[str, Any], state: Mapping[str, Tensor], *, norm: Norm
) -> Transformer:
    """Build a Transformer from a checkpoint in the layout that Marian and Pegasus share.

    Args:
        known: configuration fields of the family.
        config: fields of config.json, completed by the family's defaults.
        state: tensors by name.
        norm: "pre" or "post", as the family has it.

    Returns:
        The model, in evaluation mode.

    Raises:
        UnsupportedError, CheckpointError: as for `from_marian`.
    """
    check_supported(known.title, config, known.supported)
    config = {**{name: config[name] for name in REQUIRED}, **config}  # KeyError if one is missing
    check_equal(known.title, config, EQUAL)
    sizes = {ours: config[theirs] for theirs, ours in SIZES.items()}
    sizes["activation"] = activation_of(known.title, config, "activation_function")
    vocabulary = published_vocabulary(known.title, config, "decoder_start_token_id")
    options = {"positions": "sinusoidal-halves", "norm": norm, "output_bias": True}
    transformer_config = TransformerConfig(vocabulary=vocabulary, **options, **sizes)
    names, same = _names(transformer_config), dict.fromkeys(ALIASES, "model.shared.weight")
    return load_tensors(known.title, lambda: Transformer(transformer_config), state, names, same=same, ignored=IGNORED)


def write_layout(known: ConfigFields, model: Transformer, *, norm: Norm) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Convert a Transformer to a checkpoint in the layout that Marian and Pegasus share.

    Args:
        known: configuration fields of the family.
        model: with sinusoidal positions and default attention.
        norm: "pre" or "post", as the family has it.

    Returns:
        Fields of config.json, and tensors by name.

    Raises:
        UnsupportedError: a model that the family's layout cannot represent.
    """
    config, vocabulary = model.config, model.config.vocabulary
    for name, supported in (("norm", (norm,)), ("positions", ("sinusoidal", "sinusoidal-halves"))):
        if getattr(config, name) not in supported:
            raise UnsupportedError(
                f"{known.title} has no {name}={getattr(config, name)!r}; expected {' or '.join(supported)}"
            )
    if config.attention != AttentionConfig():
        raise UnsupportedError(
            f"{known.title} has only the default attention of a Transformer; this model has {config.attention}"
        )
    fields = {theirs: getattr(config, ours) for theirs, ours in SIZES.items()}
    fields |= {
        "activation_function": published_activation(config.activation),
        "decoder_attention_heads": config.num_heads,
        "decoder_ffn_dim": config.ffn_dim,
        "max_position_embeddings": config.max_length,
        "decoder_start_token_id": vocabulary.bos,
        "forced_eos_token_id": None,
        **special_token_fields(vocabulary),
    }
    features = torch.arange(config.embed_dim)
    if config.positions == "sinusoidal":
        features = torch.cat([features[0::2], features[1::2]])
    theirs_to_ours = {named.theirs: named.ours for named in _names(config)}
    state = {
        name: _permute(theirs_to_ours[name], x, features) for name, x in export_tensors(model, _names(config)).items()
    }
    state.setdefault("final_logits_bias", torch.zeros(vocabulary.size))
    state["final_logits_bias"] = state["final_logits_bias"].view(1, -1)
    for alias in ALIASES:
        state[alias] = state["model.shared.weight"]
    return fields, state


def _names(config: TransformerConfig) -> Iterator[TensorName]:
    """The names of all tensors."""
    yield TensorName("embedding.weight", "model.shared.weight")
    yield TensorName("output_bias", "final_logits_bias", optional=True)
    for side in ("encoder", "decoder") if config.norm == "pre" else ():
        yield from weight_and_bias(f"{side}_norm", f"model.{side}.layer_norm")
    for name in layer_names(config.encoder_layers, config.decoder_layers):
        yield name._replace(theirs=f"model.{name.theirs}")


def _permute(name: str, x: Tensor, features: Tensor) -> Tensor:
    """The tensor of this name for a model whose hidden states have their features in this order."""
    is_output = name.endswith(("output_proj.weight", "output_proj.bias", "contract.weight", "contract.bias"))
    if is_output or "norm." in name:
        return x[features]
    is_input = name.endswith(("query_proj.weight", "key_proj.weight", "value_proj.weight", "expand.weight"))
    return x[:, features] if is_input or name == "embedding.weight" else x
