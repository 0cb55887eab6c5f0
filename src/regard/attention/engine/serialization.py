"""Serialization of values to text, for compiled graphs, which support tensors, numbers and strings but no objects.

The text is a Python literal: (class, {field: ...}) for a value. Tensors and numbers are passed separately, because a
number may be symbolic in a compiled graph.

    >>> from regard.attention.patterns.pattern import Causal, SlidingWindow
    >>> text, integers, floats = to_text(Causal() & SlidingWindow(left=2))
    >>> from_text(text, [], integers, floats)
    Causal() & SlidingWindow(left=2)
"""

import ast
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import fields
from functools import lru_cache
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor

from regard.attention.value import Value

TENSOR, INTEGER, FLOAT = "tensor", "integer", "float"  # placeholders in the text


def to_text(value: Value | None) -> tuple[str, list[int], list[float]]:
    """Text of a value, with its integers and floats in the order of their placeholders."""
    integers: list[int] = []
    floats: list[float] = []
    return _text(value, integers, floats), integers, floats


def from_text(text: str, tensors: Sequence[Tensor], integers: Iterable[int], floats: Iterable[float]) -> Any:
    """Value from its text, tensors in the order of `Value.tensor_fields`, integers and floats; unchecked."""
    sources = {TENSOR: iter(tensors), INTEGER: iter(integers), FLOAT: iter(floats)}
    return _value(_parsed(text), lambda kind: next(sources[kind]))


def _text(x: Any, integers: list[int], floats: list[float]) -> str:
    if x is None or isinstance(x, bool):
        return f"{x}"
    if isinstance(x, str):
        return f"('{x}',)"
    number: Any = x.item() if isinstance(x, np.generic) else x
    if isinstance(number, int | torch.SymInt):
        integers.append(cast(int, number))
        return f"'{INTEGER}'"
    if isinstance(number, float | torch.SymFloat):
        floats.append(cast(float, number))
        return f"'{FLOAT}'"
    if isinstance(x, tuple):
        return "[" + ", ".join([_text(item, integers, floats) for item in x]) + "]"
    if isinstance(x, Value):
        items = [f"'{f.name}': {_text(getattr(x, f.name), integers, floats)}" for f in fields(x)]  # type: ignore[arg-type]
        return f"('{type(x).__module__}.{type(x).__qualname__}', {{{', '.join(items)}}})"
    return f"'{TENSOR}'"


_parsed = lru_cache(maxsize=1024)(ast.literal_eval)


def _value(x: Any, fill: Callable[[str], Any]) -> Any:
    if isinstance(x, str):
        return fill(x)
    if isinstance(x, list):
        return tuple(_value(item, fill) for item in x)
    if not isinstance(x, tuple):
        return x
    if len(x) == 1:
        return x[0]
    name, items = x
    classes = [c for c in _subclasses(Value) if f"{c.__module__}.{c.__qualname__}" == name]
    value: Any = object.__new__(classes[-1])  # the last definition, if a notebook defined the class again
    for field, item in items.items():
        object.__setattr__(value, field, _value(item, fill))
    return value


def _subclasses(cls: type[Value]) -> Iterator[type[Value]]:
    for subclass in cls.__subclasses__():
        yield subclass
        yield from _subclasses(subclass)
