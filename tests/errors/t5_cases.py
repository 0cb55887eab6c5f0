"""Misuse of T5 and of its checkpoints: see `cases.py`."""

from collections.abc import Callable
from typing import Any

import regard as rg
from regard.errors import CheckpointError, ConfigError, UnsupportedError
from regard.models.t5_names import from_t5, to_t5


def model(**changes: Any) -> rg.T5:
    sizes = {"embed_dim": 6, "num_heads": 2, "head_dim": 3, "ffn_dim": 5, "encoder_layers": 1, "decoder_layers": 1}
    return rg.T5(rg.T5Config(vocabulary=rg.Vocabulary(size=11, pad=0, bos=0, eos=1), **{**sizes, **changes}))


def read(**changes: Any) -> Callable[[], object]:
    """A checkpoint with other fields."""

    def call() -> object:
        fields, state = to_t5(model())
        return from_t5({**fields, **changes}, state)

    return call


def without(name: str) -> object:
    fields, state = to_t5(model())
    return from_t5(fields, {key: x for key, x in state.items() if key != name})


CASES: list[tuple[str, Callable[[], object], type[Exception], str]] = [
    (
        "t5-size",
        lambda: rg.T5Config.from_preset("bse", rg.Vocabulary(size=9)),
        ConfigError,
        "T5 has no preset 'bse'; did you mean 'base'?",
    ),
    ("t5-network", lambda: model(network="gatd"), ConfigError, "unknown network 'gatd'; did you mean 'gated'?"),
    ("t5-decoder-alone", read(is_encoder_decoder=False), UnsupportedError, "T5: is_encoder_decoder=False is not supp"),
    (
        "t5-feed-forward",
        read(feed_forward_proj="twice-gelu"),
        UnsupportedError,
        "T5: feed_forward_proj='twice-gelu' is not supported; expected an activation, or gated-ACTIVATION",
    ),
    ("t5-gated", read(is_gated_act="yes"), UnsupportedError, "T5: is_gated_act='yes' is not supported"),
    ("t5-activation", read(dense_act_fn="sine"), UnsupportedError, "T5: dense_act_fn='sine' is not supported"),
    ("t5-scaled", read(scale_decoder_outputs=2), UnsupportedError, "T5: scale_decoder_outputs=2 is not supported"),
    (
        "t5-shape",
        read(d_ff=7),
        CheckpointError,
        "encoder.block.0.layer.1.DenseReluDense.wi.weight torch.float32 (5, 6)",
    ),
    ("t5-missing", lambda: without("shared.weight"), CheckpointError, "missing: shared.weight"),
]
