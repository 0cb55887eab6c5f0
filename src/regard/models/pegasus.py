"""The Transformer's weights in Pegasus's layout, as the transformers package stores it, and back.

It is Marian's with the norms before each part and one more at the end of each stack: what regard trains by default.

Source: Zhang et al. 2019, "PEGASUS: Pre-training with Extracted Gap-sentences for Abstractive Summarization", arXiv
1912.08777, section 5.
"""

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from regard.models.marian import KNOWN as MARIAN
from regard.models.marian import read_layout, to_marian, write_layout
from regard.models.published import COMMON_ONLY, Fields
from regard.models.transformer import Transformer

# What fields are that a config.json leaves out.
DEFAULTS: dict[str, Any] = {
    "d_model": 1024, "encoder_layers": 12, "decoder_layers": 12, "encoder_attention_heads": 16, "encoder_ffn_dim": 4096,
    "dropout": 0.1, "activation_function": "gelu", "scale_embedding": False, "pad_token_id": 0, "eos_token_id": 1,
    "decoder_start_token_id": 0,
}  # fmt: skip
KNOWN = Fields(
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
    """The Transformer of Pegasus's configuration and weights.

    Args:
        config: fields of a PegasusConfig, as its config.json has them.
        state: its tensors by name.

    Returns:
        The model, in evaluation mode.

    Raises:
        UnsupportedError: a field that says something this model does not compute.
        CheckpointError: tensors that are missing or of other shapes.
    """
    return read_layout(KNOWN, {**DEFAULTS, **config}, state, norm="pre")


def to_pegasus(model: Transformer) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """A Transformer's configuration and weights in Pegasus's layout; see `to_marian`.

    Args:
        model: pre-norm, with sinusoidal positions and its attention as published.

    Returns:
        Fields of a PegasusConfig, and tensors by Pegasus's names.

    Raises:
        UnsupportedError: a model that Pegasus cannot be told of.
    """
    fields, state = write_layout(KNOWN, model, norm="pre")
    return {**fields, "model_type": "pegasus", "architectures": ["PegasusForConditionalGeneration"]}, state


def to_published(model: Transformer) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """A Transformer's configuration and weights in the layout that has its norms: Marian's or Pegasus's.

    Args:
        model: with sinusoidal positions and its attention as published.

    Returns:
        As for `to_marian` and `to_pegasus`.

    Raises:
        UnsupportedError: a model that neither can be told of.
    """
    return to_pegasus(model) if model.config.norm == "pre" else to_marian(model)
