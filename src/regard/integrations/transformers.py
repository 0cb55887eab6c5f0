"""regard as an attention implementation of the library `transformers`."""

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
OLDEST = 5  # version of the library whose interfaces these are
CAUSAL, DOT = Causal(), PLAIN.score  # one object each, by which `attend` knows a call again
# What models hand down to every layer that says nothing of the weights, or what the mask says already.
NOT_OF_THE_WEIGHTS = {
    "cache_position", "cu_seq_lens_k", "cu_seq_lens_q", "cu_seqlens", "deterministic", "max_length_k", "max_length_q",
    "num_items_in_batch", "output_attentions", "output_hidden_states", "output_router_logits", "past_key_values",
    "position_embeddings", "position_ids", "return_dict", "seq_idx", "sliding_window", "use_cache",
}  # fmt: skip


def integrate_transformers() -> None:
    """Registers the attention implementation "regard" with the library `transformers`, version 5 and later.

    `AutoModel.from_pretrained(name, attn_implementation="regard")` then runs every model that asks the library for its
    attention, BERT, GPT-2, T5, Marian, Llama, ViT and Whisper among them, through `attend`: dropout in training,
    caches, grouped heads, softcaps, sinks and position biases included. Where the mask that a model asks for is causal,
    a window, padding, packed documents, or several of these, it is a pattern and costs no L x S memory; another one is
    used as it is. A query that may see nothing, one of padding say, gets 0.

    `output_attentions=True` gives the weights, before dropout. Calling it twice does no harm. A model that does not
    compute all of its attention so, which the library says of itself by refusing "sdpa", is refused by name with an
    UnsupportedError when it is made; docs/integrations_models.md lists the models of one version.

    Raises:
        UnsupportedError: the library is not installed, or of a version before 5.

    >>> import transformers
    >>> rg.integrate_transformers()
    >>> config = transformers.GPT2Config(vocab_size=64, n_embd=16, n_layer=1, n_head=2)
    >>> model = transformers.AutoModel.from_config(config, attn_implementation="regard")
    >>> model(torch.tensor([[5, 6, 7]])).last_hidden_state.shape
    torch.Size([1, 3, 16])
    """
    try:
        import transformers

        found = f"version {transformers.__version__} of `transformers` is installed"
        old = is_old(transformers)
    except ImportError as error:
        found, old = f"`transformers` cannot be imported ({error})", True
    if old:
        raise UnsupportedError(f"integrate_transformers: {found}; install version {OLDEST} or later of it")
    register(NAME, attention, _mask)
    require(transformers, NAME)


def register(name: str, attention: Callable[..., Any], mask: Callable[..., Any]) -> None:
    """Let models find an attention and the masks for it by a name."""
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
    """Attention in the library's interface for it.

    Args:
        module: the layer that asks.
        query: (B, H, L, E).
        key: (B, G, S, E).
        value: (B, G, S, V).
        attention_mask: a `LazyMask`, booleans (True = may attend) or floats to add, (B, 1, L, S); None for none.
        dropout: the probability that a weight is dropped.
        scaling: what the dot products are multiplied by; 1 / sqrt(E) by default.
        is_causal: whether, without a mask, a query sees the keys up to its own row only. A layer that says nothing here
            sees all keys, as with "eager": masks that the library makes for this attention are never left out.
        position_bias: (B or 1, H, L, S), added to the scores.
        softcap: what the scores are capped to.
        s_aux: (H,), a sink's logit for each head.
        others: what changes nothing here; anything else is refused.

    Returns:
        The output (B, L, H, V), and the weights (B, H, L, S) if the model records them.

    Raises:
        UnsupportedError: an argument that would change the weights in a way unknown here, or a graph being traced.
    """
    _check_others(others)
    check_layer(module, NAME)
    if is_jit_tracing():
        raise UnsupportedError(f'attn_implementation="{NAME}" cannot be recorded by torch.jit.trace; "sdpa" can')
    if query.shape[0] != key.shape[0]:  # learned queries, say, that are the same for all sequences
        query, key, value = (x.expand(max(len(query), len(key)), -1, -1, -1) for x in (query, key, value))
    arguments = _seen_by_mask(attention_mask, query, key, bool(is_causal))
    arguments["score"] = _score(scaling, softcap, query.shape[-1])
    if s_aux is not None:
        arguments["normalizer"] = Softmax(sink=s_aux)
    if position_bias is not None:
        arguments["bias"] = position_bias + arguments["bias"] if "bias" in arguments else position_bias
    if dropout:
        arguments["dropout"] = dropout
    if wants_weights(others):
        output, seen = run(query, key, value, summary=Summary(weights=True), **arguments)
        weights = seen.weights.to(query.dtype)
    else:
        output, weights = run(query, key, value, **arguments), None
    return output.transpose(1, 2).contiguous(), weights


def _check_others(others: dict[str, Any]) -> None:
    """Raise for what may change the weights."""
    for name, given in others.items():
        if may_change_weights(name, given):
            raise UnsupportedError(
                f'attn_implementation="{NAME}": a layer asks for attention with {name}={show(given)}, which is not '
                'computed here; use attn_implementation="eager" or "sdpa" for this model'
            )


def may_change_weights(name: str, given: object) -> bool:
    """Whether an argument of the interface, beyond those that attention here has, may."""
    return not (name in NOT_OF_THE_WEIGHTS or given is None or given is False)


def is_old(library: Any) -> bool:
    """Whether the library has other interfaces than these."""
    return int(library.__version__.partition(".")[0]) < OLDEST


def _mask(**asked: Any) -> Tensor | None:
    """`make_mask` for a model that reads what it makes."""
    check_config(asked.get("config"), NAME)
    return make_mask(**asked)


def _seen_by_mask(mask: Any, query: Tensor, key: Tensor, causal: bool) -> dict[str, Any]:
    """The arguments of `attend` that say which keys a query may attend to."""
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
    """The same object for the same numbers, by which `attend` knows a call again."""
    return Dot(scale=scale, softcap=softcap)


def wants_weights(others: dict[str, Any]) -> bool:
    """Whether the caller asked the model for its attentions, which most layers are not told."""
    if torch.compiler.is_compiling():
        return bool(others.get("output_attentions"))
    asked = _collector()
    collected = None if asked is None else asked.get()
    return bool(others.get("output_attentions")) or any("attentions" in name for name in collected or ())


@lru_cache(maxsize=1)
def _collector() -> Any:
    """Where the library keeps what the running model is asked to record; None if it keeps it elsewhere."""
    from transformers import utils

    return getattr(getattr(utils, "output_capturing", None), "_active_collector", None)
