"""Acceleration of existing models for CPU inference: linear maps, and the attention of `transformers` models."""

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
from regard.layers.fast_linear import accelerate_linear, check_module, restore_linear
from regard.layers.linear import fast
from regard.layers.quantization import quantize_maps, restore_maps

NAME = "regard-inference"
SUPPORTED = {"dropout", "is_causal", "position_bias", "scaling"}  # arguments supported by both attentions
MIN_QUERIES, MIN_QUERIES_DENSE = 64, 128  # minimum queries for a gain, without and with a dense mask or bias
AnyModule = TypeVar("AnyModule", bound=nn.Module)


def accelerate(module: AnyModule, *, dtype: torch.dtype | str | None = None) -> AnyModule:
    """Accelerate a module for inference on the CPU, in place.

    Linear maps: each `nn.Linear` gets a packed copy of its weight when it first runs in `torch.no_grad()` or
    `torch.inference_mode()`; it is packed again when the weight changes. Whether the packed or the plain computation is
    faster is measured once per shape and process; they differ by rounding only. Subclasses of `nn.Linear` and modules
    with hooks or a replaced `forward` are left unchanged. A change that bypasses PyTorch's version counter, through
    `weight.data` or a NumPy view between two calls without gradients, is not detected: call `accelerate` again.

    With dtype="int8", each `nn.Linear` is replaced by a layer with weights and products in int8, which has no gradient;
    `state_dict` then has its codes and scales. It keeps the original, which `restore` puts back.

    Attention: models of `transformers` 5 or later with attention implementation "sdpa" in all parts use `attend` in
    `torch.no_grad()` or `torch.inference_mode()` for at least 64 queries. The implementation in their configuration
    becomes "regard-inference", which also affects other models that share the configuration object. Other calls, and
    machines with baseline kernels only, run as before.

    Parameters, names, `state_dict` and gradients are unchanged, except in int8.

    Args:
        module: any module, or an `nn.Linear` itself.
        dtype: dtype of the products of linear maps, torch.bfloat16 or torch.float32, with sums in float32 and results
            in the dtype of the input; by default the dtype of weights and inputs. Autocast takes precedence. Or "int8":
            weights with a scale for each output, inputs with one for each row.

    Returns:
        The module; an `nn.Linear` itself in int8 is returned as another layer.

    Raises:
        ConfigError: not a module, or another dtype.

    >>> model = rg.accelerate(torch.nn.Sequential(torch.nn.Linear(64, 96), torch.nn.ReLU()).eval())
    >>> with torch.inference_mode():
    ...     model(torch.randn(3, 64)).shape
    torch.Size([3, 96])
    """
    if dtype == "int8":
        module = quantize_maps(module, embeddings=False, keep=True)
    else:
        module = restore_maps(check_module("accelerate", module))
        accelerate_linear(module, dtype)
    for model in _models(module):
        if fast() is not None and _implementations(model) == {"sdpa"} and _can_change(model):
            model._regard_inference = Registered()
            model.set_attn_implementation(NAME)
    return module


def restore(module: AnyModule) -> AnyModule:
    """Undo `accelerate`, in place, and free the packed weights.

    Args:
        module: the accelerated module, or a module that contains it.

    Returns:
        The module.

    Raises:
        ConfigError: not a module.
    """
    module = restore_maps(check_module("restore", module))
    restore_linear(module)
    for model in _models(module):
        vars(model).pop("_regard_inference", None)
        if _implementations(model) == {NAME}:
            model.set_attn_implementation("sdpa")
    return module


class Registered:
    """Attribute of an accelerated model that registers the attention again when the model is unpickled."""

    def __init__(self) -> None:
        register(NAME, _attention, _mask)

    def __reduce__(self) -> tuple[type["Registered"], tuple[()]]:
        return Registered, ()


def _models(module: nn.Module) -> Iterator[Any]:
    """Outermost `transformers` models in a module."""
    library: Any = sys.modules.get("transformers")  # without the import there is no such model
    if library is None or is_old(library):
        return
    if isinstance(module, library.PreTrainedModel):
        yield module
    else:
        for child in module.children():
            yield from _models(child)


def _implementations(model: Any) -> set[str | None]:
    """Attention implementations in the configurations of a model and its parts."""
    implementations: set[str | None] = set()
    configs = [part.config for part in model.modules() if isinstance(part, _library_model())]
    while configs:
        config = configs.pop()
        implementations.add(config._attn_implementation)
        configs += [part for name in config.sub_configs if (part := getattr(config, name, None)) is not None]
    return implementations


def _can_change(model: Any) -> bool:
    """Whether all classes of a model get their attention from the library and none depends on its name."""
    classes = {kind for part in model.modules() for kind in type(part).__mro__}
    models = [kind for kind in classes if issubclass(kind, _library_model()) and kind is not _library_model()]
    return all(kind._can_set_attn_implementation() for kind in models) and not any(
        _mentions_sdpa(kind.__module__) for kind in classes
    )


def _library_model() -> Any:
    return sys.modules["transformers"].PreTrainedModel


@lru_cache
def _mentions_sdpa(file: str) -> bool:
    """Whether a source file mentions "sdpa" or has its own attention interface."""
    if file.startswith(("builtins", "torch.", "regard.")):
        return False
    if file.startswith("transformers.") and not file.startswith("transformers.models."):  # shared by all models
        return False
    try:
        code = inspect.getsource(sys.modules[file])
    except (KeyError, OSError, TypeError):
        return True  # unknown
    return re.search(r"""["']sdpa["']|AttentionInterface\(\)""", code) is not None


def _applies(queries: int, device: torch.device | str) -> bool:
    """Whether a call is computed by `attend`."""
    return (
        not torch.is_grad_enabled()
        and not torch.compiler.is_compiling()
        and not is_jit_tracing()
        and queries >= MIN_QUERIES
        and torch.device(device).type == "cpu"
    )


def _attention(
    module: Any, query: Tensor, key: Tensor, value: Tensor, attention_mask: Any, **others: Any
) -> tuple[Tensor, Tensor | None]:
    """Attention function in the library's interface: by `attend`, or by the library's "sdpa"."""
    use_regard = (
        _applies(query.shape[2], query.device)
        and not (
            query.shape[2] < MIN_QUERIES_DENSE and any(map(_is_dense, (attention_mask, others.get("position_bias"))))
        )
        and all(type(x) is Tensor for x in (query, key, value))
        and not (others.get("dropout") or wants_weights(others))
        and not any(name not in SUPPORTED and may_change_weights(name, x) for name, x in others.items())
    )
    if use_regard and others.get("is_causal") is None:
        others["is_causal"] = getattr(module, "is_causal", True)  # the default of the library's function
    run = attention if use_regard else sys.modules["transformers"].AttentionInterface()["sdpa"]
    result: tuple[Tensor, Tensor | None] = run(module, query, key, value, attention_mask, **others)
    return result


def _is_dense(mask: Any) -> bool:
    """Whether a mask is a dense tensor."""
    return isinstance(mask, Tensor) and not isinstance(mask, LazyMask)


def _mask(
    batch_size: int, q_length: int, kv_length: int, device: torch.device | str = "cpu", **rest: Any
) -> Tensor | None:
    """Mask function in the library's interface: a `LazyMask` if the attention will run by `attend`.

    A static cache, with keys beyond the last query, may belong to a compiled model, which needs the library's masks.
    """
    reads = _applies(q_length, device) and kv_length <= q_length + int(rest.get("q_offset", 0))
    make = make_mask if reads else sys.modules["transformers"].masking_utils.sdpa_mask
    mask: Tensor | None = make(batch_size=batch_size, q_length=q_length, kv_length=kv_length, device=device, **rest)
    return mask
