"""Evaluation-mode view of a module that leaves the module itself in training mode.

`module.eval()` affects every thread: a concurrent training step would run without dropout.
"""

from types import MethodType
from typing import Any, TypeVar

from torch import nn

AnyModule = TypeVar("AnyModule", bound=nn.Module)
HOOKS = (
    "_forward_hooks", "_forward_hooks_with_kwargs", "_forward_hooks_always_called", "_forward_pre_hooks",
    "_forward_pre_hooks_with_kwargs", "_backward_hooks", "_backward_pre_hooks",
)  # fmt: skip


def in_evaluation(module: AnyModule) -> AnyModule:
    """Evaluation-mode view of a module.

    Args:
        module: a module in any mode; it is not changed.

    Returns:
        The module itself if all of its parts are in evaluation mode. Otherwise a copy of its structure that shares
        parameters, buffers and other attributes, so that it takes almost no memory and reflects later changes of the
        weights. Hooks of the module are copied; hooks registered on the copy affect the copy only. A compiled module
        runs uncompiled.

    >>> model = torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.Dropout(0.5))
    >>> view = in_evaluation(model)
    >>> view.training, model.training, view[0].weight is model[0].weight
    (False, True, True)
    """
    parts = list(module.modules())
    if not any(part.training for part in parts):
        return module
    views: dict[int, Any] = {id(part): object.__new__(type(part)) for part in parts}
    for part in parts:
        fields, view = vars(part), vars(views[id(part)])
        view.update({name: _bound(x, views) for name, x in fields.items()})
        view.update({name: fields[name].copy() for name in HOOKS if name in fields})
        view["_modules"] = {name: None if child is None else views[id(child)] for name, child in part._modules.items()}
        view["training"] = False
    view_of_all: AnyModule = views[id(module)]
    return view_of_all


def _bound(x: Any, views: dict[int, Any]) -> Any:
    """Rebind an uncompiled method of a module to its copy; other attributes are returned unchanged."""
    method = getattr(x, "_torchdynamo_orig_callable", x) if callable(x) else x
    if isinstance(method, MethodType) and id(method.__self__) in views:
        return MethodType(method.__func__, views[id(method.__self__)])
    return x
