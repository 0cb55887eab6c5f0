"""Checks of the fields of configurations, by their annotations."""

import dataclasses
from types import NoneType, UnionType
from typing import Any, Literal, NewType, Union, get_args, get_origin, get_type_hints

from regard.attention.check import check_integer, is_number, show
from regard.errors import ConfigError, nearest

TokenId = NewType("TokenId", int)  # unlike a size, it may be 0


def check_fields(config: Any) -> None:
    """Raise ConfigError unless each field has the type of its annotation.

    An int is a size, at least 1; a TokenId is at least 0; a Literal is one of its values; other annotations are
    checked with isinstance. None is valid if the annotation has it.
    """
    owner = type(config).__name__
    hints = get_type_hints(type(config))
    for field in dataclasses.fields(config):
        kind, x = hints[field.name], getattr(config, field.name)
        if get_origin(kind) in (UnionType, Union):
            if x is None and NoneType in get_args(kind):
                continue
            [kind] = (arg for arg in get_args(kind) if arg is not NoneType)
        if get_origin(kind) is Literal:
            if x not in get_args(kind):
                raise ConfigError(f"{owner}: unknown {field.name} {x!r}; {nearest(x, get_args(kind))}")
        elif kind in (int, TokenId):
            check_integer(owner, field.name, x, 1 if kind is int else 0)
        elif not (is_number(x) if kind is float else isinstance(x, get_origin(kind) or kind)):
            raise ConfigError(f"{owner}: {field.name}={show(x)} must be a {kind.__name__}")
