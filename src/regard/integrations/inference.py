"""Anyone's model made fast at inference on the CPU: its linear maps, and the attention that `transformers` computes."""

import inspect
import re
import sys
from collections.abc import Iterator
from functools import lru_cache
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from regard.attention.engine.tracing import is_jit_tracing
from regard.integrations.lazy_mask import LazyMask
from regard.integrations.masks import make_mask
from regard.integrations.transformers import attention, is_old, may_change_weights, register, wants_weights
from regard.layers.fast_linear import accelerate_linear, restore_linear
from regard.layers.linear import fast

NAME = "regard-inference"
TAKEN = {"dropout", "is_causal", "position_bias", "scaling"}  # by both attentions
LEAST, LEAST_DENSE = 64, 128  # queries: fewer gain little; the latter with a mask or bias of L x S numbers
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
    through `attend` in `torch.no_grad()` or `torch.inference_mode()`, from 64 queries on; its configuration then calls
    it "regard-inference", and so does every other model that has the same object as its configuration. Elsewhere, and
    where there are no kernels but the plainest, it runs as before.

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
    for model in _models(module):
        if fast() is not None and _implementations(model) == {"sdpa"} and _can_change(model):
            model._regard_inference = Registered()
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
    for model in _models(module):
        vars(model).pop("_regard_inference", None)
        if _implementations(model) == {NAME}:
            model.set_attn_implementation("sdpa")
    return module


class Registered:
    """Held by a model whose configuration names the attention here, so that the name is known where it is unpickled."""

    def __init__(self) -> None:
        register(NAME, _attention, _mask)

    def __reduce__(self) -> tuple[type["Registered"], tuple[()]]:
        return Registered, ()


def _models(module: nn.Module) -> Iterator[Any]:
    """The models of `transformers` that do not stand in another."""
    library: Any = sys.modules.get("transformers")  # a model of it has been made only where it has been imported
    if library is None or is_old(library):
        return
    if isinstance(module, library.PreTrainedModel):
        yield module
    else:
        for child in module.children():
            yield from _models(child)


def _implementations(model: Any) -> set[str | None]:
    """What the parts of a model call their attention."""
    found, configs = set(), [part.config for part in model.modules() if isinstance(part, _library_model())]
    while configs:
        config = configs.pop()
        found.add(config._attn_implementation)
        configs += [part for name in config.sub_configs if (part := getattr(config, name, None)) is not None]
    return found


def _can_change(model: Any) -> bool:
    """Whether all its code asks the library for its attention, and nowhere what that is called."""
    classes = {kind for part in model.modules() for kind in type(part).__mro__}
    asking = [kind for kind in classes if issubclass(kind, _library_model()) and kind is not _library_model()]
    return all(kind._can_set_attn_implementation() for kind in asking) and not any(
        _names_it(kind.__module__) for kind in classes
    )


def _library_model() -> Any:
    return sys.modules["transformers"].PreTrainedModel


@lru_cache
def _names_it(file: str) -> bool:
    """Whether the file of some part of a model has the name in it, or attention functions of its own."""
    if file.startswith(("builtins", "torch.", "regard.")):
        return False
    if file.startswith("transformers.") and not file.startswith("transformers.models."):  # what all models share
        return False
    try:
        code = inspect.getsource(sys.modules[file])
    except (KeyError, OSError, TypeError):
        return True  # perhaps
    return re.search(r"""["']sdpa["']|AttentionInterface\(\)""", code) is not None


def _serves(queries: int, device: torch.device | str) -> bool:
    """Whether attention runs through `attend` here."""
    return (
        not torch.is_grad_enabled()
        and not torch.compiler.is_compiling()
        and not is_jit_tracing()
        and queries >= LEAST
        and torch.device(device).type == "cpu"
    )


def _attention(
    module: Any, query: Tensor, key: Tensor, value: Tensor, attention_mask: Any, **others: Any
) -> tuple[Tensor, Tensor | None]:
    """Attention in the library's interface for it: regard's, or the library's own by PyTorch's function."""
    ours = (
        _serves(query.shape[2], query.device)
        and not (query.shape[2] < LEAST_DENSE and any(map(_is_dense, (attention_mask, others.get("position_bias")))))
        and all(type(x) is Tensor for x in (query, key, value))
        and not (others.get("dropout") or wants_weights(others))
        and not any(name not in TAKEN and may_change_weights(name, x) for name, x in others.items())
    )
    if ours and others.get("is_causal") is None:
        others["is_causal"] = getattr(module, "is_causal", True)  # as the library's function has it
    run = attention if ours else sys.modules["transformers"].AttentionInterface()["sdpa"]
    found: tuple[Tensor, Tensor | None] = run(module, query, key, value, attention_mask, **others)
    return found


def _is_dense(mask: Any) -> bool:
    """Whether it has numbers for queries and keys in memory."""
    return isinstance(mask, Tensor) and not isinstance(mask, LazyMask)


def _mask(
    batch_size: int, q_length: int, kv_length: int, device: torch.device | str = "cpu", **rest: Any
) -> Tensor | None:
    """The mask of a model's layers, in the library's interface for it: a pattern if regard's attention will read it.

    A static cache, whose keys go beyond the last query, may be for a compiled model, which takes no other tensors than
    the library's.
    """
    reads = _serves(q_length, device) and kv_length <= q_length + int(rest.get("q_offset", 0))
    make = make_mask if reads else sys.modules["transformers"].masking_utils.sdpa_mask
    found: Tensor | None = make(batch_size=batch_size, q_length=q_length, kv_length=kv_length, device=device, **rest)
    return found
