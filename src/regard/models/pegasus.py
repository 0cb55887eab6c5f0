"""Conversion between Transformer models and Pegasus checkpoints of the transformers package.

The layout is Marian's with pre-norm layers and a final norm in each stack, which is what regard trains by default.

Source: Zhang et al. 2019, "PEGASUS: Pre-training with Extracted Gap-sentences for Abstractive Summarization", arXiv
1912.08777, section 5.
"""

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from regard.models.marian import CONFIG_FIELDS as MARIAN
from regard.models.marian import read_layout, to_marian, write_layout
from regard.models.published import COMMON_ONLY, ConfigFields
from regard.models.transformer import Transformer

# Defaults of fields that a config.json leaves out.
DEFAULTS: dict[str, Any] = {
    "d_model": 1024, "encoder_layers": 12, "decoder_layers": 12, "encoder_attention_heads": 16, "encoder_ffn_dim": 4096,
    "dropout": 0.1, "activation_function": "gelu", "scale_embedding": False, "pad_token_id": 0, "eos_token_id": 1,
    "decoder_start_token_id": 0,
}  # fmt: skip
CONFIG_FIELDS = ConfigFields(
    "Pegasus",
    tuple(name for name in MARIAN.read if name != "decoder_vocab_size"),
    {
        **COMMON_ONLY,
        "is_decoder": (False, None),
        "is_encoder_decoder": (True, None),
        "tie_word_embeddings": (True,),
        "normalize_before": (True,),
        "normalize_embedding": (False,),
        "add_final_layer_norm": (True,),
        "static_position_embeddings": (True,),
        "add_bias_logits": (False,),
    },
    MARIAN.irrelevant,
    MARIAN.aliases,
)


def from_pegasus(config: Mapping[str, Any], state: Mapping[str, Tensor]) -> Transformer:
    """Build a Transformer from a Pegasus checkpoint.

    Args:
        config: fields of config.json, a PegasusConfig.
        state: tensors by name.

    Returns:
        The model, in evaluation mode.

    Raises:
        UnsupportedError: a field with an unsupported value.
        CheckpointError: tensors that are missing or of other shapes.
    """
    return read_layout(CONFIG_FIELDS, {**DEFAULTS, **config}, state, norm="pre")


def to_pegasus(model: Transformer) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Convert a Transformer to a Pegasus checkpoint; see `to_marian`.

    Args:
        model: pre-norm, with sinusoidal positions and default attention.

    Returns:
        Fields of config.json, and tensors by name.

    Raises:
        UnsupportedError: a model that Pegasus's layout cannot represent.
    """
    fields, state = write_layout(CONFIG_FIELDS, model, norm="pre")
    return {**fields, "model_type": "pegasus", "architectures": ["PegasusForConditionalGeneration"]}, state


def to_published(model: Transformer) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Convert a Transformer to a Pegasus checkpoint if it is pre-norm, else to a Marian checkpoint.

    Args:
        model: with sinusoidal positions and default attention.

    Returns:
        As for `to_marian` and `to_pegasus`.

    Raises:
        UnsupportedError: a model that neither layout can represent.
    """
    return to_pegasus(model) if model.config.norm == "pre" else to_marian(model)
