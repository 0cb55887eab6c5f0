"""Error messages for arguments of other libraries: what to write in regard instead."""

from collections.abc import Callable, Iterable, Mapping
from inspect import signature
from typing import Any

import torch
from torch import Tensor

from regard.attention.check import show
from regard.errors import ConfigError, nearest

HIDES = "rg.Mask.from_hidden(mask) where True hides, as in torch.nn.MultiheadAttention"
BOOLEANS = f"for booleans write pattern=rg.Mask(mask) where True = may attend, or {HIDES}"
FLOATS = "for floats that are added to the scores write bias=mask"
WEIGHTS = "write summary=rg.Summary(weights=True), which returns (output, result) with result.weights"
CAUSAL = (
    "write pattern=rg.Causal(), which aligns the last query with the last key; with query_start=0 it aligns the first "
)
CAUSAL += "query with the first key, as in PyTorch"
BIAS = "write bias=x for floats that broadcast to (batch, heads, queries, keys)"
SCALE = "write score=rg.Dot(scale=...)"
SINK = "write normalizer=rg.LearnedSink() in a layer, rg.Softmax(sink=logits) in a call: a head may attend to nothing"
PADDING = "write pattern=rg.KeyLengths(lengths) for padding at the end, or, of a mask (batch, keys) "
WINDOW = "write pattern=rg.SlidingWindow(left=..., right=...): keys before and after the query's own position"
# Of torch.nn.functional, torch.nn, flex_attention, flash-attn, xformers and transformers.
CALLS = {
    "alibi_slopes": "write bias=rg.ALiBi(slopes)",
    "attention_mask": f"{PADDING}that is 0 for padding, pattern=rg.Mask(mask[:, None, None] != 0)",
    "attn_bias": BIAS,
    "attn_mask": f"{BOOLEANS}; {FLOATS}",
    "average_attn_weights": f"{WEIGHTS}; their mean over heads is result.weights.mean(1)",
    "block_mask": "write pattern=..., such as rg.Causal() & rg.SlidingWindow(left=256) or rg.BlockSparse(layout, 128)",
    "causal": CAUSAL,
    "dropout_p": "write dropout=p; there is no training flag, so give 0.0 in evaluation",
    "enable_gqa": "leave it out; grouped heads follow from the shapes of query and key",
    "head_mask": "multiply the heads of the output instead",
    "is_causal": CAUSAL,
    "key_padding_mask": f"{PADDING}that is True for padding, pattern=rg.Mask.from_hidden(mask[:, None, None])",
    "mask": f"{BOOLEANS}; {FLOATS}",
    "need_weights": WEIGHTS,
    "output_attentions": WEIGHTS,
    "position_bias": f"{BIAS}, or a value such as rg.ALiBi or rg.RelativeBias",
    "return_lse": "write summary=rg.Summary(log_sum_exp=True), which returns (output, result) with result.log_sum_exp",
    "return_weights": WEIGHTS,
    "s_aux": SINK,
    "scale": SCALE,
    "scaling": SCALE,
    "score_mod": "write score=..., bias=... or normalizer=..., which together define the scores and weights",
    "softcap": "write score=rg.Dot(softcap=...)",
    "softmax_scale": SCALE,
    "window_size": WINDOW,
}
LAYERS = {
    "add_bias_kv": SINK,
    "add_zero_attn": SINK,
    "attention_dropout": "write dropout=p",
    "attn_dropout": "write dropout=p",
    "batch_first": "leave it out; inputs are (batch, length, embed_dim), so transpose others",
    "causal": "write pattern=rg.Causal()",
    "d_model": "write embed_dim=...",
    "device": "leave it out, and move the layer by layer.to(device)",
    "dim": "write embed_dim=...",
    "dropout_p": "write dropout=p, which counts in training only",
    "dtype": "leave it out, and cast the layer by layer.to(dtype)",
    "heads": "write num_heads=...",
    "hidden_size": "write embed_dim=...",
    "is_causal": "write pattern=rg.Causal()",
    "kdim": "write key_dim=...",
    "n_heads": "write num_heads=...",
    "nhead": "write num_heads=...",
    "num_attention_heads": "write num_heads=...",
    "num_key_value_heads": "write num_kv_heads=...",
    "scale": SCALE,
    "softcap": "write score=rg.Dot(softcap=...)",
    "vdim": "write value_dim=...",
    "window_size": WINDOW,
}
SETTING = "it is a setting of the layer; write MultiHeadAttention(..., {})"
CALLS_OF_LAYERS = CALLS | {
    "backend": SETTING.format("backend=...)"),
    "dropout": SETTING.format("dropout=p"),
    "dropout_p": SETTING.format("dropout=p"),
    "normalizer": SETTING.format("normalizer=..."),
    "scale": SETTING.format("score=rg.Dot(scale=...)"),
    "score": SETTING.format("score=..."),
    "softcap": SETTING.format("score=rg.Dot(softcap=...)"),
}


def unknown_argument(
    owner: str, others: Mapping[str, object], hints: Mapping[str, str], function: Callable[..., Any]
) -> ConfigError:
    """Make the error for unknown arguments of a function.

    Args:
        owner: name of the function or class, for the message.
        others: the unknown arguments, by name; at least one.
        hints: what to write instead, by argument name of another library.
        function: the function, whose parameters are suggested as near matches.

    Returns:
        The error to raise.
    """
    name, value = next(iter(others.items()))
    if name in hints:
        hint = hints[name]
        if name in ("attn_mask", "mask") and isinstance(value, Tensor):
            hint = BOOLEANS if value.dtype == torch.bool else FLOATS
        return ConfigError(f"{owner} has no argument {name}={show(value)}: {hint}")
    return ConfigError(f"{owner} has no argument {name!r}; {nearest(name, _names(function))}")


def _names(function: Callable[..., Any]) -> Iterable[str]:
    return (name for name in signature(function).parameters if name not in ("self", "others"))
