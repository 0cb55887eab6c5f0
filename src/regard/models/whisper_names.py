"""Checkpoints of Whisper: config.json's fields and the names of tensors, and back."""

from collections.abc import Iterator, Mapping
from typing import Any

from torch import Tensor

from regard.models.encoder_decoder_names import EQUAL, check_equal, layer_names
from regard.models.published import (
    COMMON_IRRELEVANT,
    COMMON_ONLY,
    HEADS,
    TRAINING,
    ConfigFields,
    RenamedTensors,
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
from regard.models.whisper import Whisper, WhisperConfig

# Field of transformers' WhisperConfig: field of WhisperConfig.
SIZES = {
    "num_mel_bins": "num_mels",
    "d_model": "embed_dim",
    "encoder_attention_heads": "num_heads",
    "encoder_ffn_dim": "ffn_dim",
    "encoder_layers": "encoder_layers",
    "decoder_layers": "decoder_layers",
    "max_source_positions": "source_length",
    "max_target_positions": "max_length",
    "dropout": "dropout",
    "attention_dropout": "attention_dropout",
}
SUPPORTED: dict[str, tuple[Any, ...]] = {
    **COMMON_ONLY,
    "is_encoder_decoder": (True, None),
    "tie_word_embeddings": (True, None),
    "scale_embedding": (False, None),
}
START = "decoder_start_token_id"
DEFAULTS: dict[str, Any] = {
    "num_mel_bins": 80, "d_model": 384, "encoder_layers": 4, "decoder_layers": 4, "encoder_attention_heads": 6,
    "encoder_ffn_dim": 1536, "max_source_positions": 1500, "max_target_positions": 448, "activation_function": "gelu",
    "eos_token_id": 50256, START: 50257, "pad_token_id": 50256, "dropout": 0.0, "attention_dropout": 0.0,
}  # fmt: skip
CONFIG_FIELDS = ConfigFields(
    "Whisper",
    (*SIZES, *EQUAL, "activation_function", "vocab_size", START, "eos_token_id", "pad_token_id", "model_type"),
    SUPPORTED,
    {
        **COMMON_IRRELEVANT,
        **dict.fromkeys(
            (
                "activation_dropout", "encoder_layerdrop", "decoder_layerdrop", "init_std", "apply_spec_augment",
                "mask_time_prob", "mask_time_length", "mask_time_min_masks", "mask_feature_prob", "mask_feature_length",
                "mask_feature_min_masks",
            ),
            TRAINING,
        ),
        **dict.fromkeys(("classifier_proj_size", "use_weighted_layer_sum"), HEADS),
        "bos_token_id": "texts start with decoder_start_token_id",
        "median_filter_width": "word times are smoothed over 7 frames, as published",
    },
    {
        "num_attention_heads": "encoder_attention_heads", "num_key_value_heads": "encoder_attention_heads",
        "hidden_size": "d_model", "num_hidden_layers": "encoder_layers",
    },
)  # fmt: skip
EMBEDDING = "decoder.embed_tokens.weight"


def from_whisper(config: Mapping[str, Any], state: Mapping[str, Tensor]) -> Whisper:
    """The model of a published configuration and its tensors.

    Args:
        config: fields of config.json.
        state: tensors by name.

    Returns:
        The model, in evaluation mode.

    Raises:
        UnsupportedError: a field with an unsupported value.
        CheckpointError: tensors that are missing or of other shapes.
    """
    title = CONFIG_FIELDS.title
    check_supported(title, config, SUPPORTED)
    config = {**DEFAULTS, **{name: x for name, x in config.items() if x is not None}}
    check_equal(title, config)
    # Suppressed tokens are a matter of decoding: see `regard.tasks.speech_tokens`.
    tokens = {name: x for name, x in config.items() if name not in ("suppress_tokens", "bad_words_ids")}
    fields: dict[str, Any] = {ours: config[theirs] for theirs, ours in SIZES.items()}
    fields["activation"] = activation_of(title, config, "activation_function")
    whisper_config = WhisperConfig(vocabulary=published_vocabulary(title, tokens, START), **fields)
    tensors = RenamedTensors(state, lambda name: name.removeprefix("model."))
    same_tensors = {"proj_out.weight": EMBEDDING}
    return load_tensors(title, lambda: Whisper(whisper_config), tensors, _names(whisper_config), same=same_tensors)


def to_whisper(model: Whisper) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """A model's configuration and tensors as they are published.

    Args:
        model: the model.

    Returns:
        Fields of config.json, and tensors by name.
    """
    config = model.config
    fields = {theirs: getattr(config, ours) for theirs, ours in SIZES.items()}
    fields |= {name: fields[same] for name, same in EQUAL.items()}
    fields |= {
        **special_token_fields(config.vocabulary),
        "model_type": "whisper",
        "architectures": ["WhisperForConditionalGeneration"],
        "activation_function": published_activation(config.activation),
        "scale_embedding": False,
        "tie_word_embeddings": True,
        START: config.vocabulary.bos,
    }
    state = {f"model.{name}": x for name, x in export_tensors(model, _names(config)).items()}
    return fields, {**state, "proj_out.weight": state[f"model.{EMBEDDING}"]}


def _names(config: WhisperConfig) -> Iterator[TensorName]:
    """The names of all tensors."""
    for i in range(2):
        yield from weight_and_bias(f"convolutions.{i}", f"encoder.conv{i + 1}")
    yield TensorName("source_positions", "encoder.embed_positions.weight")
    yield TensorName("embedding.weight", EMBEDDING)
    yield TensorName("positions.weight", "decoder.embed_positions.weight")
    for side in ("encoder", "decoder"):
        yield from weight_and_bias(f"{side}_norm", f"{side}.layer_norm")
    yield from layer_names(config.encoder_layers, config.decoder_layers, key_bias=False)
