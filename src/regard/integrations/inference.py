"""Anyone's model made fast at inference on the CPU: its linear maps, and the attention that `transformers` computes."""

import inspect
import re
import sys
from collections.abc import Iterator
from functools import lru_cache
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from regard.integrations.masks import make_mask
from regard.integrations.transformers import NOT_OF_THE_WEIGHTS, OLDEST, attention
from regard.layers.fast_linear import accelerate_linear, restore_linear
from regard.layers.linear import fast

NAME = "regard-inference"
KNOWN = NOT_OF_THE_WEIGHTS | {"scaling", "is_causal", "position_bias"}  # what attention here takes
LEAST = 16  # queries: for fewer, as in decoding, the attention of a model takes as long by PyTorch's function
Anyones = TypeVar("Anyones", bound=nn.Module)


def accelerate(module: Anyones, *, dtype: torch.dtype | None = None) -> Anyones:
    """Make a module fast at inference on the CPU, in place.

    Linear maps: each `nn.Linear` gets a second copy of its weight, laid out for products, when it first runs in
    `torch.no_grad()` or `torch.inference_mode()`, made again whenever the weight changes. Which way is faster for a
    shape, this or PyTorch's, is measured when the process first meets it and remembered; the two round differently,
    within the error of either. Linear maps that are not exactly `nn.Linear` or the layers' own, or that have hooks or a
    `forward` of their own, are left alone. A write that PyTorch doesn't count, through `weight.data` or a NumPy view
    between two calls without gradients, is not seen: call `accelerate` again.

    Attention: a model of the library `transformers`, version 5 and later, whose attention is "sdpa" all over, runs it
    through `attend` in `torch.no_grad()` or `torch.inference_mode()`, from 16 queries on; its configuration then calls
    it "regard-inference". Elsewhere it runs as before.

    Parameters, names, `state_dict` and gradients stay as they are.

    Args:
        module: anyone's, or an `nn.Linear` itself.
        dtype: what the products of linear maps run in, torch.bfloat16 or torch.float32, with sums in float32 and
            results in the type of the input; by default the type that weights and inputs have. Autocast overrules it.

    Returns:
        The module.

    Raises:
        ConfigError: something else than a module, or another dtype.

    >>> model = rg.accelerate(torch.nn.Sequential(torch.nn.Linear(64, 96), torch.nn.ReLU()).eval())
    >>> with torch.inference_mode():
    ...     model(torch.randn(3, 64)).shape
    torch.Size([3, 96])
    """
    accelerate_linear(module, dtype)
    for model, names in _models(module):
        if names == {"sdpa"} and fast() is not None:
            library = sys.modules["transformers"]
            library.AttentionInterface.register(NAME, _attention)
            library.AttentionMaskInterface.register(NAME, _mask)
            model.set_attn_implementation(NAME)
    return module


def restore(module: Anyones) -> Anyones:
    """Undo `accelerate`, in place: linear maps and attention run as before, and the second copies of weights go.

    Args:
        module: what `accelerate` was given, or what holds it.

    Returns:
        The module.

    Raises:
        ConfigError: something else than a module.
    """
    restore_linear(module)
    for model, names in _models(module):
        if names == {NAME}:
            model.set_attn_implementation("sdpa")
    return module


def _models(module: nn.Module) -> Iterator[tuple[Any, set[str]]]:
    """The models of `transformers` that do not stand in another, and what they call their attention."""
    library: Any = sys.modules.get("transformers")  # a model of it has been made only where it has been imported
    if library is None or int(library.__version__.partition(".")[0]) < OLDEST:
        return
    if not isinstance(module, library.PreTrainedModel):
        for child in module.children():
            yield from _models(child)
        return
    parts = [part for part in module.modules() if isinstance(part, library.PreTrainedModel)]
    if all(_can_change(type(part)) for part in parts):
        yield module, {part.config._attn_implementation for part in parts}


@lru_cache
def _can_change(model: Any) -> bool:
    """Whether a class of models asks the library for its attention, and nowhere what that is called."""
    try:
        code = inspect.getsource(sys.modules[model.__module__])
    except (KeyError, OSError, TypeError):
        return False
    return bool(model._can_set_attn_implementation()) and not re.search(
        r"""["']sdpa["']|AttentionInterface\(\)""", code
    )


def _serves(queries: int, device: torch.device | str) -> bool:
    """Whether attention runs through `attend` here."""
    return (
        not torch.is_grad_enabled()
        and not torch.compiler.is_compiling()
        and torch._C._get_tracing_state() is None
        and queries >= LEAST
        and torch.device(device).type == "cpu"
    )


def _attention(
    module: Any,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    dropout: float = 0.0,
    **others: Any,
) -> tuple[Tensor, Tensor | None]:
    """Attention in the library's interface for it: regard's, or the library's own by PyTorch's function."""
    unknown = [name for name, x in others.items() if name not in KNOWN and x is not None and x is not False]
    if not _serves(query.shape[2], query.device) or dropout or unknown:
        found: tuple[Tensor, Tensor | None] = sys.modules["transformers"].AttentionInterface()["sdpa"](
            module, query, key, value, attention_mask, dropout=dropout, **others
        )
        return found
    return attention(module, query, key, value, attention_mask, **others)


def _mask(
    batch_size: int, q_length: int, kv_length: int, device: torch.device | str = "cpu", **rest: Any
) -> Tensor | None:
    """The mask of a model's layers, in the library's interface for it: a pattern if regard's attention will read it."""
    make = make_mask if _serves(q_length, device) else sys.modules["transformers"].masking_utils.sdpa_mask
    found: Tensor | None = make(batch_size=batch_size, q_length=q_length, kv_length=kv_length, device=device, **rest)
    return found
