"""Tensor names of encoder-decoder layers in the layout that Marian's, Pegasus' and Whisper's checkpoints share."""

from collections.abc import Iterator, Mapping
from typing import Any

from regard.errors import UnsupportedError
from regard.models.published import TensorName, weight_and_bias

# Fields of the decoder that must equal those of the encoder.
EQUAL = {"decoder_attention_heads": "encoder_attention_heads", "decoder_ffn_dim": "encoder_ffn_dim"}
ATTENTION = {"query_proj": "q_proj", "key_proj": "k_proj", "value_proj": "v_proj", "output_proj": "out_proj"}
ENCODER = {
    "self_attention": "self_attn",
    "around_self.norm": "self_attn_layer_norm",
    "feed_forward.expand": "fc1",
    "feed_forward.contract": "fc2",
    "around_feed_forward.norm": "final_layer_norm",
}
DECODER = {**ENCODER, "cross_attention": "encoder_attn", "around_cross.norm": "encoder_attn_layer_norm"}


def layer_names(encoder_layers: int, decoder_layers: int, *, key_bias: bool = True) -> Iterator[TensorName]:
    """Names of the tensors of all layers.

    Args:
        encoder_layers: number of layers.
        decoder_layers: number of layers.
        key_bias: whether the projections of keys have a bias.

    Yields:
        The names; the checkpoint's without a prefix such as "model.".
    """
    for side, layers, parts in (("encoder", encoder_layers, ENCODER), ("decoder", decoder_layers, DECODER)):
        for i in range(layers):
            for part, published in parts.items():
                ours, theirs = f"{side}.{i}.{part}", f"{side}.layers.{i}.{published}"
                if not part.endswith("attention"):
                    yield from weight_and_bias(ours, theirs)
                    continue
                for projection, other in ATTENTION.items():
                    bias = key_bias or projection != "key_proj"
                    yield from weight_and_bias(f"{ours}.{projection}", f"{theirs}.{other}", bias=bias)


def check_equal(family: str, config: Mapping[str, Any], equal: Mapping[str, str] = EQUAL) -> None:
    """Raise unless fields of a configuration equal others.

    Args:
        family: name in messages.
        config: fields by name.
        equal: the field that each of these must equal; a missing one is not checked.

    Raises:
        UnsupportedError: a field with another value.
    """
    for name, other in equal.items():
        if config.get(name) not in (None, config[other]):
            raise UnsupportedError(
                f"{family}: {name}={config[name]!r} differs from {other}={config[other]!r}; expected equal values"
            )
