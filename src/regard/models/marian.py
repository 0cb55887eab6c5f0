"""The Transformer's weights in Marian's layout, as the transformers package stores it, and back.

Source: Junczys-Dowmunt et al. 2018, "Marian: Fast Neural Machine Translation in C++", arXiv 1804.00344.
"""

from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor

from regard.errors import UnsupportedError
from regard.layers.attention_config import AttentionConfig
from regard.layers.transformer_layer import Norm
from regard.models.published import (
    COMMON_IRRELEVANT,
    COMMON_ONLY,
    MARKS,
    TRAINING,
    Fields,
    Named,
    activation_of,
    check_only,
    published_activation,
    published_marks,
    published_vocabulary,
    read_named,
    write_named,
)
from regard.models.transformer import Transformer, TransformerConfig

# Field of MarianConfig, field of TransformerConfig.
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
# Fields of MarianConfig that change the mathematics, and the only value that is supported.
ONLY: dict[str, tuple[Any, ...]] = {
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
# Fields that must be equal to others.
EQUAL = {
    "decoder_attention_heads": "encoder_attention_heads",
    "decoder_ffn_dim": "encoder_ffn_dim",
    "decoder_vocab_size": "vocab_size",
}
NEEDED = ("vocab_size", "pad_token_id", "decoder_start_token_id")
# What the others are that a config.json leaves out.
DEFAULTS: dict[str, Any] = {
    "d_model": 1024, "encoder_layers": 12, "decoder_layers": 12, "encoder_attention_heads": 16, "encoder_ffn_dim": 4096,
    "dropout": 0.1, "activation_function": "gelu", "scale_embedding": False, "eos_token_id": 0,
}  # fmt: skip
KNOWN = Fields(
    "Marian",
    (
        *SIZES, *EQUAL, "vocab_size", "pad_token_id", "eos_token_id", "decoder_start_token_id", "model_type",
        "task_specific_params", "prefix",
    ),
    ONLY,
    {
        **COMMON_IRRELEVANT,
        **dict.fromkeys(
            (
                "attention_dropout", "activation_dropout", "encoder_layerdrop", "decoder_layerdrop", "init_std",
                "classif_dropout", "classifier_dropout",
            ),
            TRAINING,
        ),
        "bos_token_id": MARKS,
        "max_position_embeddings": "of positions, which are computed without bound",
        "extra_pos_embeddings": "of learned positions",
    },
    {"num_attention_heads": "encoder_attention_heads", "hidden_size": "d_model", "num_hidden_layers": "encoder_layers"},
)  # fmt: skip
# Second names of the one embedding.
ALIASES = ("model.encoder.embed_tokens.weight", "model.decoder.embed_tokens.weight", "lm_head.weight")
IGNORED = ("model.*.embed_positions.weight",)  # computed
ATTENTION = {"query_proj": "q_proj", "key_proj": "k_proj", "value_proj": "v_proj", "output_proj": "out_proj"}
ENCODER = {
    "self_attention": "self_attn",
    "around_self.norm": "self_attn_layer_norm",
    "feed_forward.expand": "fc1",
    "feed_forward.contract": "fc2",
    "around_feed_forward.norm": "final_layer_norm",
}
DECODER = {**ENCODER, "cross_attention": "encoder_attn", "around_cross.norm": "encoder_attn_layer_norm"}


def from_marian(config: Mapping[str, Any], state: Mapping[str, Tensor]) -> Transformer:
    """The Transformer of Marian's configuration and weights.

    Args:
        config: fields of a MarianConfig, as its config.json has them.
        state: its tensors by name.

    Returns:
        The model, in evaluation mode.

    Raises:
        UnsupportedError: a field that says something this model does not compute.
        CheckpointError: tensors that are missing or of other shapes.
    """
    return read_layout(KNOWN, {**DEFAULTS, **config}, state, norm="post")


def to_marian(model: Transformer) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """A Transformer's configuration and weights in Marian's layout.

    Sinusoidal positions of the published layout are turned into Marian's by reordering the features of every token,
    which changes no output.

    Args:
        model: post-norm, with sinusoidal positions and its attention as published.

    Returns:
        Fields of a MarianConfig, and tensors by Marian's names.

    Raises:
        UnsupportedError: a model that Marian cannot be told of.
    """
    fields, state = write_layout(KNOWN, model, norm="post")
    fields |= {
        "model_type": "marian",
        "architectures": ["MarianMTModel"],
        "decoder_vocab_size": fields["vocab_size"],
        "share_encoder_decoder_embeddings": True,
        "static_position_embeddings": True,
    }
    return fields, state


def read_layout(known: Fields, config: Mapping[str, Any], state: Mapping[str, Tensor], *, norm: Norm) -> Transformer:
    """The Transformer of a configuration and weights in the layout that Marian and its kin share.

    Args:
        known: of the family.
        config: fields, the family's defaults among them.
        state: tensors by name.
        norm: where norms stand.

    Returns:
        The model, in evaluation mode.

    Raises:
        UnsupportedError, CheckpointError: as for `from_marian`.
    """
    check_only(known.title, config, known.only)
    config = {**{name: config[name] for name in NEEDED}, **config}
    for name, same in EQUAL.items():
        if config.get(name) not in (None, config[same]):
            raise UnsupportedError(f"{known.title}: {name}={config[name]!r} differs from {same}={config[same]!r}")
    sizes = {ours: config[theirs] for theirs, ours in SIZES.items()}
    sizes["activation"] = activation_of(known.title, config, "activation_function")
    vocabulary = published_vocabulary(known.title, config, "decoder_start_token_id")
    choices = {"positions": "sinusoidal-halves", "norm": norm, "output_bias": True}
    made = TransformerConfig(vocabulary=vocabulary, **choices, **sizes)
    same = dict.fromkeys(ALIASES, "model.shared.weight")
    return read_named(known.title, lambda: Transformer(made), state, _names(made), same=same, ignored=IGNORED)


def write_layout(known: Fields, model: Transformer, *, norm: Norm) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """A Transformer's configuration and weights in the layout that Marian and its kin share.

    Args:
        known: of the family.
        model: with sinusoidal positions and its attention as published.
        norm: where its norms must stand.

    Returns:
        Fields, and tensors by their names.

    Raises:
        UnsupportedError: a model that the family cannot be told of.
    """
    config, words = model.config, model.config.vocabulary
    for name, only in (("norm", (norm,)), ("positions", ("sinusoidal", "sinusoidal-halves"))):
        if getattr(config, name) not in only:
            raise UnsupportedError(
                f"{known.title} has no {name}={getattr(config, name)!r}; expected {' or '.join(only)}"
            )
    if config.attention != AttentionConfig():
        raise UnsupportedError(f"{known.title}'s attention is as published; this model's is {config.attention}")
    fields = {theirs: getattr(config, ours) for theirs, ours in SIZES.items()}
    fields |= {
        "activation_function": published_activation(config.activation),
        "decoder_attention_heads": config.num_heads,
        "decoder_ffn_dim": config.ffn_dim,
        "max_position_embeddings": config.max_length,
        "decoder_start_token_id": words.bos,
        "forced_eos_token_id": None,
        **published_marks(words),
    }
    features = torch.arange(config.embed_dim)
    if config.positions == "sinusoidal":
        features = torch.cat([features[0::2], features[1::2]])
    theirs_to_ours = {named.theirs: named.ours for named in _names(config)}
    state = {
        name: _reordered(theirs_to_ours[name], x, features) for name, x in write_named(model, _names(config)).items()
    }
    state.setdefault("final_logits_bias", torch.zeros(words.size))
    state["final_logits_bias"] = state["final_logits_bias"].view(1, -1)
    for alias in ALIASES:
        state[alias] = state["model.shared.weight"]
    return fields, state


def _names(config: TransformerConfig) -> Iterator[Named]:
    """Our name and theirs of every tensor."""
    yield Named("embedding.weight", "model.shared.weight")
    yield Named("output_bias", "final_logits_bias", optional=True)
    for side in ("encoder", "decoder") if config.norm == "pre" else ():
        for kind in ("weight", "bias"):
            yield Named(f"{side}_norm.{kind}", f"model.{side}.layer_norm.{kind}")
    for side, layers, parts in (
        ("encoder", config.encoder_layers, ENCODER),
        ("decoder", config.decoder_layers, DECODER),
    ):
        for i in range(layers):
            for ours, theirs in parts.items():
                inner = ATTENTION.items() if ours.endswith("attention") else [("", "")]
                for a, b in inner:
                    for kind in ("weight", "bias"):
                        left = ".".join(x for x in (side, str(i), ours, a, kind) if x)
                        yield Named(left, ".".join(x for x in ("model", side, "layers", str(i), theirs, b, kind) if x))


def _reordered(name: str, x: Tensor, features: Tensor) -> Tensor:
    """A tensor for tokens whose features stand in another order."""
    writes = name.endswith(("output_proj.weight", "output_proj.bias", "contract.weight", "contract.bias"))
    if writes or "norm." in name:
        return x[features]
    reads = name.endswith(("query_proj.weight", "key_proj.weight", "value_proj.weight", "expand.weight"))
    return x[:, features] if reads or name == "embedding.weight" else x
