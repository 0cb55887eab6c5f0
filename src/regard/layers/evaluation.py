"""A model in evaluation mode for one caller, while it stays in training mode for all others.

`module.eval()` changes what every thread sees: a training step that runs meanwhile would lose its dropout.
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
    """A module in evaluation mode.

    Args:
        module: of any mode, which stays as it is.

    Returns:
        The module itself if all of it is in evaluation mode. Else a copy of its structure, whose parameters, buffers
        and other attributes are the same objects: it takes next to no memory, and sees every later change of a weight.
        Hooks of the module are hooks of the copy, too; those that are registered on the copy are on the copy alone. A
        compiled module runs uncompiled.

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
    """A method of a part, as a method of its copy, not compiled; whatever else it is, as it is."""
    method = getattr(x, "_torchdynamo_orig_callable", x) if callable(x) else x
    if isinstance(method, MethodType) and id(method.__self__) in views:
        return MethodType(method.__func__, views[id(method.__self__)])
    return x
