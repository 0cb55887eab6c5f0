"""T5's checkpoints as the transformers package stores them, and back.

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
    MARKS,
    TRAINING,
    Fields,
    Named,
    activation_of,
    check_only,
    published_marks,
    published_vocabulary,
    read_named,
    write_named,
)
from regard.models.t5 import T5, T5Config

# Field of T5's config.json, field of T5Config.
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
# Fields that change the mathematics, and the only values that are supported.
ONLY: dict[str, tuple[Any, ...]] = {
    **COMMON_ONLY,
    "is_encoder_decoder": (True, None),
    "is_decoder": (False, None),
}
KNOWN = Fields(
    "T5",
    (
        *FIELDS, "vocab_size", "feed_forward_proj", "dense_act_fn", "is_gated_act", "tie_word_embeddings",
        "scale_decoder_outputs", "pad_token_id", "eos_token_id", "decoder_start_token_id", "model_type",
        "task_specific_params", "prefix",
    ),
    ONLY,
    {
        **COMMON_IRRELEVANT,
        **dict.fromkeys(("initializer_factor", "classifier_dropout"), TRAINING),
        "bos_token_id": MARKS,
        "n_positions": "of the first training; distances have no bound",
    },
    {
        "hidden_size": "d_model", "num_attention_heads": "num_heads", "num_hidden_layers": "num_layers",
        "head_dim": "d_kv",
    },
)  # fmt: skip
SHARED, OUTPUT = "shared.weight", "lm_head.weight"
ALIASES = ("encoder.embed_tokens.weight", "decoder.embed_tokens.weight")
# A table that old checkpoints have, and that no model has ever read.
IGNORED = ("decoder.block.0.layer.1.EncDecAttention.relative_attention_bias.weight",)
TABLE = "block.0.layer.0.SelfAttention.relative_attention_bias.weight"
ATTENTION = {"query_proj": "q", "key_proj": "k", "value_proj": "v", "output_proj": "o"}
PLAIN = {"expand": "wi", "contract": "wo"}
GATED = {"gate": "wi_0", "expand": "wi_1", "contract": "wo"}


def from_t5(config: Mapping[str, Any], state: Mapping[str, Tensor]) -> T5:
    """The model of T5's configuration and weights.

    Args:
        config: fields of a T5Config of the transformers package, as its config.json has them.
        state: its tensors by name.

    Returns:
        The model, in evaluation mode.

    Raises:
        UnsupportedError: a field that says something this model does not compute.
        CheckpointError: tensors that are missing, unknown or of other shapes.
    """
    check_only("T5", config, ONLY)
    sizes = {ours: config[theirs] for theirs, ours in FIELDS.items() if config.get(theirs) is not None}
    if "encoder_layers" in sizes:
        sizes.setdefault("decoder_layers", sizes["encoder_layers"])
    network, activation = _network(config)
    # v1.1 is told from v1.0 by either field; a checkpoint of v1.1 without an output of its own shares its vectors.
    scaled = config.get("scale_decoder_outputs", config.get("tie_word_embeddings") is not False)
    if not isinstance(scaled, bool):
        raise UnsupportedError(f"T5: scale_decoder_outputs={show(scaled)} is not supported; expected True or False")
    pad = config.get("pad_token_id", 0)
    marks = {"pad_token_id": pad, "decoder_start_token_id": pad, "eos_token_id": 1}
    vocabulary = published_vocabulary("T5", {**marks, **config}, "decoder_start_token_id")
    made = T5Config(
        vocabulary=vocabulary,
        network=network,
        activation=activation,
        tie_output=_tied(config, scaled, state),
        scale_output=scaled,
        **sizes,
    )
    same = dict.fromkeys((*ALIASES, OUTPUT) if made.tie_output else ALIASES, SHARED)
    return read_named("T5", lambda: T5(made), state, _names(made), same=same, ignored=IGNORED)


def to_t5(model: T5) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """A T5's configuration and weights in the transformers package's layout.

    Args:
        model: whose weights are taken.

    Returns:
        Fields of config.json, and tensors by its names.
    """
    config = model.config
    known = {ours: theirs for theirs, ours in reversed(ACTIVATIONS.items())}
    activation, gated = known[config.activation], config.network == "gated"
    project = "gated-gelu" if gated and activation == "gelu_new" else f"{'gated-' if gated else ''}{activation}"
    fields = {theirs: getattr(config, ours) for theirs, ours in FIELDS.items()}
    fields |= {
        "model_type": "t5",
        "architectures": ["T5ForConditionalGeneration"],
        "feed_forward_proj": project,
        "dense_act_fn": activation,
        "is_gated_act": gated,
        "is_encoder_decoder": True,
        "tie_word_embeddings": config.tie_output,
        "scale_decoder_outputs": config.scale_output,
        "decoder_start_token_id": config.vocabulary.bos,
        **published_marks(config.vocabulary),
    }
    state = write_named(model, _names(config))
    for alias in (*ALIASES, OUTPUT) if config.tie_output else ALIASES:
        state[alias] = state[SHARED]
    return fields, state


def _tied(config: Mapping[str, Any], scaled: bool, state: Mapping[str, Tensor]) -> bool:
    """Whether the output's vectors are those of the tokens.

    The field alone does not tell: some files say that they are tied, of v1.1, and hold both.
    """
    if OUTPUT not in state or config.get("tie_word_embeddings") is False:
        return OUTPUT not in state
    return scaled or (SHARED in state and torch.equal(state[OUTPUT], state[SHARED]))


def _network(config: Mapping[str, Any]) -> tuple[Any, str]:
    """The kind of the feed-forward networks, "plain" or "gated", and their activation."""
    named = config.get("feed_forward_proj", "relu")
    head, _, tail = named.partition("-") if isinstance(named, str) else ("", "", "")
    if not head or (tail and head != "gated"):
        raise UnsupportedError(
            f"T5: feed_forward_proj={show(named)} is not supported; expected an activation, or gated-ACTIVATION"
        )
    # "gated-gelu" has always meant the form by tanh; later files say so in fields of their own
    activation = "gelu_new" if named == "gated-gelu" else tail or head
    gated = config.get("is_gated_act", bool(tail))
    if not isinstance(gated, bool):
        raise UnsupportedError(f"T5: is_gated_act={show(gated)} is not supported; expected True or False")
    said = {"dense_act_fn": activation, **config}
    return "gated" if gated else "plain", activation_of("T5", said, "dense_act_fn")


def _names(config: T5Config) -> Iterator[Named]:
    """Where each tensor stands."""
    yield Named("embedding.weight", SHARED)
    if not config.tie_output:
        yield Named("output.weight", OUTPUT)
    network = GATED if config.network == "gated" else PLAIN
    for side, layers in (("encoder", config.encoder_layers), ("decoder", config.decoder_layers)):
        yield Named(f"{side}_bias.table", f"{side}.{TABLE}")
        yield Named(f"{side}_norm.weight", f"{side}.final_layer_norm.weight")
        parts = [("self_attention", "around_self", "SelfAttention", ATTENTION)]
        if side == "decoder":
            parts.append(("cross_attention", "around_cross", "EncDecAttention", ATTENTION))
        parts.append(("feed_forward", "around_feed_forward", "DenseReluDense", network))
        for i in range(layers):
            for place, (part, around, theirs, maps) in enumerate(parts):
                there = f"{side}.block.{i}.layer.{place}"
                yield Named(f"{side}.{i}.{around}.norm.weight", f"{there}.layer_norm.weight")
                for a, b in maps.items():
                    yield Named(f"{side}.{i}.{part}.{a}.weight", f"{there}.{theirs}.{b}.weight")
