"""Checks whether models of `transformers` use the library's attention interface."""

import functools
import inspect
import re
import sys
from functools import lru_cache
from typing import Any

from regard.errors import UnsupportedError

MARK = "_regard_names"  # attribute of the patched library method: the attention names that it checks


def require(library: Any, name: str) -> None:
    """Patch the library to check a model's support before it selects the attention of this name.

    The library does this for "sdpa" and its other built-in attentions, but not for registered ones.
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
    """Raise UnsupportedError unless a model class without attention or with the library's attention interface."""
    if not _supports(kind):
        raise UnsupportedError(
            f'attn_implementation="{name}": {kind.__name__} does not compute its attention through the interface of '
            '`transformers`, nor does it take "sdpa"; use "eager" for it; for a part of a model by a dictionary, as in '
            f'attn_implementation={{"": "{name}", "vision_config": "eager"}}'
        )


def check_layer(layer: Any, name: str) -> None:
    """Raise UnsupportedError for a layer of an unsupported model whose configuration was changed afterwards."""
    models = _models_in(type(layer).__module__)
    if models and not any(map(_supports, models)):
        check_model(models[0], name)


def check_config(config: Any, name: str) -> None:
    """Raise UnsupportedError for the configuration of an unsupported model."""
    file = type(config).__module__.replace(".configuration_", ".modeling_")
    for kind in _models_in(file):
        if getattr(kind, "config_class", None) is type(config):
            check_model(kind, name)


@lru_cache(maxsize=1024)
def _models_in(file: str) -> tuple[type, ...]:
    """Model classes defined in a source file of the library."""
    if not file.startswith("transformers.models.") or file not in sys.modules:
        return ()
    library, kinds = sys.modules["transformers"], vars(sys.modules[file]).values()
    models = [kind for kind in kinds if inspect.isclass(kind) and issubclass(kind, library.PreTrainedModel)]
    return tuple(kind for kind in models if kind.__module__ == file)


@lru_cache(maxsize=1024)
def _supports(kind: Any) -> bool:
    """Whether a model class declares support and uses the attention interface, or has no attention."""
    try:
        code = inspect.getsource(sys.modules[kind.__module__])
    except (KeyError, OSError, TypeError):
        return bool(kind._supports_sdpa or kind._supports_attention_backend)
    if re.search(r"ATTENTION_CLASSES\[", code):  # its own dictionary of attentions
        return False
    if kind._supports_sdpa or kind._supports_attention_backend:
        return True
    return re.search(r"^class \w*attention\w*\(|get_interface\(", code, re.MULTILINE | re.IGNORECASE) is None
