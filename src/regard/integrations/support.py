"""Which models of `transformers` compute their attention through the library's interface for it."""

import functools
import inspect
import re
import sys
from functools import lru_cache
from typing import Any

from regard.errors import UnsupportedError

MARK = "_regard_names"  # of the library's method, once it asks here: for which attentions it does


def require(library: Any, name: str) -> None:
    """Make the library ask, before a model takes an attention by this name, whether all of the model is ready for it.

    The library itself asks so for "sdpa" and the others that it brings, and not for those that are registered.
    """
    method = library.PreTrainedModel.get_correct_attn_implementation
    names: set[str] | None = getattr(method, MARK, None)
    if names is not None:
        names.add(name)
        return
    names = {name}

    @functools.wraps(method)
    def checked(self: Any, requested_attention: str | None, *others: Any, **options: Any) -> str:
        if requested_attention in names:
            check_model(type(self), requested_attention)
        chosen: str = method(self, requested_attention, *others, **options)
        return chosen

    setattr(checked, MARK, names)
    library.PreTrainedModel.get_correct_attn_implementation = checked


def check_model(kind: type, name: str) -> None:
    """Raise UnsupportedError unless a class of models computes its attention, if it has any, through the interface."""
    if not _supports(kind):
        raise UnsupportedError(
            f'attn_implementation="{name}": {kind.__name__} does not compute its attention through the interface of '
            '`transformers`, nor does it take "sdpa"; use "eager" for it; for a part of a model by a dictionary, as in '
            f'attn_implementation={{"": "{name}", "vision_config": "eager"}}'
        )


def check_layer(layer: Any, name: str) -> None:
    """Raise UnsupportedError for a layer in whose file no model is ready: its configuration was changed behind it."""
    models = _models_in(type(layer).__module__)
    if models and not any(map(_supports, models)):
        check_model(models[0], name)


def check_config(config: Any, name: str) -> None:
    """Raise UnsupportedError for the configuration of such a model."""
    file = type(config).__module__.replace(".configuration_", ".modeling_")
    for kind in _models_in(file):
        if getattr(kind, "config_class", None) is type(config):
            check_model(kind, name)


@lru_cache(maxsize=1024)
def _models_in(file: str) -> tuple[type, ...]:
    """The models that a file of the library defines."""
    if not file.startswith("transformers.models.") or file not in sys.modules:
        return ()
    library, kinds = sys.modules["transformers"], vars(sys.modules[file]).values()
    models = [kind for kind in kinds if inspect.isclass(kind) and issubclass(kind, library.PreTrainedModel)]
    return tuple(kind for kind in models if kind.__module__ == file)


@lru_cache(maxsize=1024)
def _supports(kind: Any) -> bool:
    """Whether it says so, of PyTorch's attention or of any, and finds attentions by the interface; or has none."""
    try:
        code = inspect.getsource(sys.modules[kind.__module__])
    except (KeyError, OSError, TypeError):
        return bool(kind._supports_sdpa or kind._supports_attention_backend)
    if re.search(r"ATTENTION_CLASSES\[", code):  # by a dictionary of its own, which knows no other names
        return False
    if kind._supports_sdpa or kind._supports_attention_backend:
        return True
    return re.search(r"^class \w*attention\w*\(|get_interface\(", code, re.MULTILINE | re.IGNORECASE) is None
