"""Quantization of a module's linear maps and embeddings to int8, in place, and back."""

from collections.abc import Callable, Collection, Iterable, Mapping
from typing import Any, TypeVar, final

import torch
from torch import nn
from torch.overrides import TorchFunctionMode

from regard.errors import ConfigError, nearest
from regard.layers.fast_linear import FastLinear, check_module, customized
from regard.layers.linear import Linear
from regard.layers.quantized_linear import MAX_DEPTH, QuantizedEmbedding, QuantizedLinear, is_quantized

MIN_SIZE = 1 << 12  # numbers in a weight; a smaller one, such as a classifier's of few labels, gains nothing
MIN_EMBEDDINGS = 256  # rows of an embedding; fewer are types or positions
AnyModule = TypeVar("AnyModule", bound=nn.Module)


def quantizable(module: nn.Module, *, embeddings: bool) -> dict[str, nn.Module]:
    """Parts of a module that int8 can hold, by name.

    Args:
        module: any module; of a linear map itself, the name is "".
        embeddings: whether token embeddings count.

    Returns:
        Each linear map and embedding once, under its first name. Without those that are small, have weights that are
        not finite, subclasses of `nn.Linear`, and parts with hooks.
    """
    return {name: part for name, part in module.named_modules() if _fits(part, embeddings=embeddings)}


def quantize_maps(
    module: AnyModule, *, embeddings: bool = True, skip: Collection[str] = (), keep: bool = False
) -> AnyModule:
    """Replace the linear maps and embeddings of a module by layers in int8, in place.

    Args:
        module: for inference. A linear map itself is not replaced: its layer is returned.
        embeddings: whether token embeddings are replaced too. Their codes are those of a tied output projection.
        skip: names of parts that stay in float32.
        keep: whether the layers keep the originals, for `restore_maps`.

    Returns:
        The module.

    Raises:
        ConfigError: not a module, or a name in `skip` that no part has.
    """
    check_module("quantize", module)
    parts = quantizable(module, embeddings=embeddings)
    for name in skip:
        if name not in parts and not is_quantized(dict(module.named_modules()).get(name, module)):
            raise ConfigError(f"quantize: skip={name!r} is no linear map of the module; {nearest(name, parts)}")
    quantized = {id(part): _quantized(part, keep=keep) for name, part in parts.items() if name not in skip}
    return _replaced(module, quantized)


def restore_maps(module: AnyModule) -> AnyModule:
    """Undo `quantize_maps` where the layers keep their originals, in place; returns the module."""
    originals = {
        id(part): part.original for part in module.modules() if is_quantized(part) and part.original is not None
    }  # type: ignore[attr-defined]
    return _replaced(module, originals)


@final
class WeightsOnMeta(TorchFunctionMode):
    """Context in which new linear maps and embeddings get no memory for their weights; see `replace_by_empty`."""

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        options = dict(kwargs or {})
        if func is torch.empty and len(args) == 1 and isinstance(args[0], tuple) and len(args[0]) == 2:
            options["device"] = "meta"
        return func(*args, **options)


def can_be_int8(part: nn.Module | None) -> bool:
    """Whether a part is a linear map or an embedding."""
    return isinstance(part, nn.Linear | nn.Embedding)


def replace_by_empty(module: nn.Module, names: Iterable[str]) -> None:
    """Put int8 layers without content in place of parts, and give memory to weights that are left without.

    Args:
        module: built in `WeightsOnMeta`.
        names: of linear maps and embeddings, by their first names.
    """
    empty: dict[int, nn.Module] = {}
    for name in names:
        part = module.get_submodule(name)
        if isinstance(part, nn.Embedding):
            empty[id(part)] = QuantizedEmbedding(part.num_embeddings, part.embedding_dim)
        elif isinstance(part, nn.Linear):
            empty[id(part)] = QuantizedLinear(part.in_features, part.out_features, part.bias is not None)
    _replaced(module, empty)
    fresh: dict[int, nn.Parameter] = {}  # shared ones stay shared
    for part in module.modules():
        for name, x in part._parameters.items():
            if x is not None and x.is_meta:
                part._parameters[name] = fresh.setdefault(id(x), nn.Parameter(torch.empty(x.shape, dtype=x.dtype)))


def _replaced(module: AnyModule, others: dict[int, nn.Module]) -> AnyModule:
    """The module with other parts in place of those with these ids, wherever they occur."""
    for parent in list(module.modules()):
        for name, child in parent._modules.items():
            if id(child) in others:
                parent._modules[name] = others[id(child)]
    replaced: AnyModule = others.get(id(module), module)  # type: ignore[assignment]
    return replaced


def _fits(part: nn.Module, *, embeddings: bool) -> bool:
    if type(part) in (nn.Linear, Linear, FastLinear):
        fits = not customized(part) and part.weight.shape[1] <= MAX_DEPTH
    elif type(part) is nn.Embedding and embeddings:
        fits = part.num_embeddings >= MIN_EMBEDDINGS and part.max_norm is None
    else:
        return False
    weight = part.weight
    return bool(fits and weight.numel() >= MIN_SIZE and weight.is_floating_point() and weight.isfinite().all())


def _quantized(part: nn.Module, *, keep: bool) -> nn.Module:
    return (
        QuantizedLinear.of(part, keep=keep) if isinstance(part, nn.Linear) else QuantizedEmbedding.of(part, keep=keep)
    )  # type: ignore[arg-type]
