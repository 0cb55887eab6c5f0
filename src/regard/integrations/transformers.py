"""Attention implementation "regard" of the library `transformers`."""

from collections.abc import Callable
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

from regard.attention.check import show
from regard.attention.engine.tracing import is_jit_tracing
from regard.attention.normalizer import Softmax
from regard.attention.patterns.pattern import Causal
from regard.attention.patterns.sequence_pattern import Mask
from regard.attention.score import Dot
from regard.attention.spec import PLAIN
from regard.attention.summary import Summary
from regard.errors import UnsupportedError
from regard.integrations.lazy_mask import LazyMask
from regard.integrations.masks import make_mask
from regard.integrations.plans import run
from regard.integrations.support import check_config, check_layer, require

NAME = "regard"
OLDEST = 5  # minimum major version of the library
CAUSAL, DOT = Causal(), PLAIN.score  # one object each, because the call cache of `attend` compares identities
# Arguments of the interface that don't affect the weights, or only through the mask.
IGNORED = {
    "cache_position", "cu_seq_lens_k", "cu_seq_lens_q", "cu_seqlens", "deterministic", "max_length_k", "max_length_q",
    "num_items_in_batch", "output_attentions", "output_hidden_states", "output_router_logits", "past_key_values",
    "position_embeddings", "position_ids", "return_dict", "seq_idx", "sliding_window", "use_cache",
}  # fmt: skip


def integrate_transformers() -> None:
    """Register the attention implementation "regard" in the library `transformers`, version 5 or later.

    `AutoModel.from_pretrained(name, attn_implementation="regard")` then computes attention by `attend` in every model
    that uses the library's attention interface, such as BERT, GPT-2, T5, Marian, Llama, ViT and Whisper. Dropout in
    training, caches, grouped heads, softcaps, sinks and position biases are supported. A mask that is causal, a window,
    padding, packed documents, or a combination of these becomes a pattern without L x S memory; other masks stay dense.
    A query without visible keys, such as padding, gets 0.

    `output_attentions=True` returns the weights before dropout. Repeated calls have no further effect. Creating a model
    that does not use the interface for all of its attention raises an UnsupportedError with its name;
    docs/integrations_models.md lists the models of one version.

    Raises:
        UnsupportedError: the library is missing or older than version 5.

    >>> import transformers
    >>> rg.integrate_transformers()
    >>> config = transformers.GPT2Config(vocab_size=64, n_embd=16, n_layer=1, n_head=2)
    >>> model = transformers.AutoModel.from_config(config, attn_implementation="regard")
    >>> model(torch.tensor([[5, 6, 7]])).last_hidden_state.shape
    torch.Size([1, 3, 16])
    """
    try:
        import transformers

        problem = f"version {transformers.__version__} of `transformers` is installed"
        old = is_old(transformers)
    except ImportError as error:
        problem, old = f"`transformers` cannot be imported ({error})", True
    if old:
        raise UnsupportedError(f"integrate_transformers: {problem}; install version {OLDEST} or later")
    register(NAME, attention, _mask)
    require(transformers, NAME)


def register(name: str, attention: Callable[..., Any], mask: Callable[..., Any]) -> None:
    """Register an attention function and its mask function in the library, by name."""
    import transformers

    transformers.AttentionInterface.register(name, attention)
    transformers.AttentionMaskInterface.register(name, mask)


def attention(
    module: Any,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    dropout: float = 0.0,
    scaling: float | Tensor | None = None,
    is_causal: bool | None = None,
    position_bias: Tensor | None = None,
    softcap: float | None = None,
    s_aux: Tensor | None = None,
    **others: Any,
) -> tuple[Tensor, Tensor | None]:
    """Attention function in the library's interface.

    Args:
        module: the calling layer.
        query: (B, H, L, E).
        key: (B, G, S, E).
        value: (B, G, S, V).
        attention_mask: a `LazyMask`, booleans (True = may attend) or floats to add, (B, 1, L, S); None for none.
        dropout: probability that a weight is dropped.
        scaling: factor on the dot products; 1 / sqrt(E) by default.
        is_causal: whether to use a causal pattern if there is no mask; not by default, as in "eager", because the
            library always makes a mask for this attention where one is needed.
        position_bias: (B or 1, H, L, S), added to the scores.
        softcap: soft cap of the scores.
        s_aux: (H,), sink logits.
        others: ignored if they don't affect the weights; other arguments raise UnsupportedError.

    Returns:
        The output (B, L, H, V), and the weights (B, H, L, S) if the model records them, else None.

    Raises:
        UnsupportedError: an argument that would change the weights in a way unknown here, or a graph being traced.
    """
    _check_others(others)
    check_layer(module, NAME)
    if is_jit_tracing():
        raise UnsupportedError(f'attn_implementation="{NAME}" cannot be traced by torch.jit.trace; use "sdpa" for it')
    if query.shape[0] != key.shape[0]:  # for example, learned queries shared by all sequences
        query, key, value = (x.expand(max(len(query), len(key)), -1, -1, -1) for x in (query, key, value))
    arguments = _mask_arguments(attention_mask, query, key, bool(is_causal))
    arguments["score"] = _score(scaling, softcap, query.shape[-1])
    if s_aux is not None:
        arguments["normalizer"] = Softmax(sink=s_aux)
    if position_bias is not None:
        arguments["bias"] = position_bias + arguments["bias"] if "bias" in arguments else position_bias
    if dropout:
        arguments["dropout"] = dropout
    if wants_weights(others):
        output, result = run(query, key, value, summary=Summary(weights=True), **arguments)
        weights = result.weights.to(query.dtype)
    else:
        output, weights = run(query, key, value, **arguments), None
    return output.transpose(1, 2).contiguous(), weights


def _check_others(others: dict[str, Any]) -> None:
    """Raise UnsupportedError for arguments that may affect the weights."""
    for name, value in others.items():
        if may_change_weights(name, value):
            raise UnsupportedError(
                f'attn_implementation="{NAME}": a layer asks for attention with {name}={show(value)}, which is not '
                'computed here; use attn_implementation="eager" or "sdpa" for this model'
            )


def may_change_weights(name: str, value: object) -> bool:
    """Whether an additional argument of the interface may affect the weights."""
    return not (name in IGNORED or value is None or value is False)


def is_old(library: Any) -> bool:
    """Whether the library is older than the minimum version."""
    return int(library.__version__.partition(".")[0]) < OLDEST


def _mask(**arguments: Any) -> Tensor | None:
    """`make_mask`, after a check that the model supports the attention."""
    check_config(arguments.get("config"), NAME)
    return make_mask(**arguments)


def _mask_arguments(mask: Any, query: Tensor, key: Tensor, causal: bool) -> dict[str, Any]:
    """Arguments of `attend` for a mask: pattern or bias, and positions."""
    rows, columns = query.shape[2], key.shape[2]
    if mask is None:
        return {"pattern": CAUSAL, "query_start": 0} if causal and rows > 1 else {}
    if isinstance(mask, LazyMask):
        if mask.shape[0] == query.shape[0] and mask.shape[2:] == (rows, columns):
            return {"pattern": mask.pattern, "query_start": mask.query_start, "key_start": mask.key_start}
        mask = mask.dense()
    if not isinstance(mask, Tensor):
        raise UnsupportedError(
            f'attn_implementation="{NAME}": the mask is a {type(mask).__name__}; expected a tensor that broadcasts to '
            "(batch, heads, queries, keys), booleans with True = may attend or floats to add"
        )
    return {"pattern": Mask(mask)} if mask.dtype == torch.bool else {"bias": mask}


def _score(scaling: float | Tensor | None, softcap: float | None, head_dim: int) -> Dot:
    if isinstance(scaling, Tensor):
        return Dot(scale=scaling, softcap=softcap)
    return DOT if softcap is None and scaling in (None, head_dim**-0.5) else _dot(scaling, softcap)


@lru_cache(maxsize=256)
def _dot(scale: float | None, softcap: float | None) -> Dot:
    """One object for equal arguments, because the call cache of `attend` compares identities."""
    return Dot(scale=scale, softcap=softcap)


def wants_weights(others: dict[str, Any]) -> bool:
    """Whether the caller requested the attention weights, which most layers are not told."""
    if torch.compiler.is_compiling():
        return bool(others.get("output_attentions"))
    collector = _collector()
    collected = None if collector is None else collector.get()
    return bool(others.get("output_attentions")) or any("attentions" in name for name in collected or ())


@lru_cache(maxsize=1)
def _collector() -> Any:
    """Context variable of the library with the outputs to record; None in versions without it."""
    from transformers import utils

    return getattr(getattr(utils, "output_capturing", None), "_active_collector", None)
