"""Base class of the values of an attention: small frozen dataclasses that declare the tensors they hold.

A field that may hold a tensor declares the axes of its dimensions, aligned at the right as in broadcasting: B batch,
H heads, L queries, S keys; any other letter is specific to the value. Shape checks, slicing to a tile of the score
matrix, and gradients of the tensors follow from this declaration.

    >>> import torch
    >>> from regard.attention.bias import TensorBias
    >>> bias = TensorBias(torch.zeros(2, 1, 5, 7))                  # axes "BHLS"
    >>> slice_value(bias, rows=slice(0, 4), columns=slice(0, 3))
    TensorBias(tensor=Tensor(2, 1, 4, 3))
"""

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass, field, fields
from typing import Any, ClassVar, NamedTuple, TypeVar, dataclass_transform

import torch
from torch import Tensor, nn

from regard.attention.engine.tracing import opaque
from regard.errors import ConfigError

T = TypeVar("T")


def tensor_field(axes: str, **options: Any) -> Any:
    """A dataclass field that may hold a tensor whose last dimensions run along `axes`."""
    return field(metadata={"axes": axes}, **options)


@dataclass_transform(frozen_default=True, eq_default=False, field_specifiers=(field, tensor_field))
def value(cls: type[T]) -> type[T]:
    """Class decorator: a frozen dataclass with the repr, equality and hash of `Value`.

    Raises:
        ConfigError: a field with the name of a method of a base class.
    """
    decorated = dataclass(frozen=True, eq=False, repr=False)(cls)
    for f in fields(decorated):  # type: ignore[arg-type]
        if any(hasattr(base, f.name) for base in cls.__mro__[1:]):
            raise ConfigError(
                f"{cls.__name__}: field {f.name!r} shadows an attribute of a base class; rename the field"
            )
    return decorated


def short_repr(x: Any) -> str:
    """Constructor call of a dataclass as text, without fields at a default such as None or ()."""
    shown = {
        f.name: value
        for f in fields(x)
        if isinstance(value := getattr(x, f.name), Tensor | bool | int | float | str) or value != f.default
    }
    return f"{type(x).__name__}({', '.join(f'{name}={_show(value)}' for name, value in shown.items())})"


class TensorField(NamedTuple):
    """A tensor held by a value, the axes of its dimensions, and its path, such as "ALiBi.slopes"."""

    tensor: Tensor
    axes: str
    path: str


class Value:
    """Base class of the values. Compared by fields if it holds no tensor, else by identity."""

    def __repr__(self) -> str:
        shown = ", ".join(f"{f.name}={_show(x)}" for f, x in _items(self) if not _is_default(f, x))
        return f"{type(self).__name__}({shown})"

    def __eq__(self, other: object) -> bool:
        if self is other:
            return True
        if not isinstance(other, Value) or type(self) is not type(other) or self.tensor_fields or other.tensor_fields:
            return False
        return all(x == getattr(other, f.name) for f, x in _items(self))

    def __hash__(self) -> int:
        if has_tensors(self):
            return id(self)
        return hash((type(self), *(x for _, x in _items(self))))

    _tensor_fields: ClassVar[tuple[TensorField, ...] | None] = None

    @property
    def tensor_fields(self) -> tuple[TensorField, ...]:
        """Tensors of this value and of nested values, in field order."""
        if self._tensor_fields is None:
            object.__setattr__(self, "_tensor_fields", tuple(_find_tensors(self)))
        return self._tensor_fields or ()


def has_tensors(value: Value | None) -> bool:
    """Whether the value or a nested value holds a tensor."""
    return value is not None and bool(value.tensor_fields)


def _find_tensors(value: Value) -> Iterator[TensorField]:
    if "__dataclass_fields__" not in type(value).__dict__:
        raise ConfigError(f"{type(value).__name__} is not a value class; decorate it with regard.attention.value.value")
    for f, x in _items(value):
        if isinstance(x, Tensor):
            if "axes" not in f.metadata:
                raise ConfigError(
                    f"{type(value).__name__}: field {f.name!r} holds a tensor without declared axes; "
                    'declare it with regard.attention.value.tensor_field, as in tensor_field("BHLS")'
                )
            yield TensorField(x, f.metadata["axes"], f"{type(value).__name__}.{f.name}")
        elif isinstance(x, Value):
            yield from x.tensor_fields


V = TypeVar("V", bound=Value)


def rebuild(value: V, tensors: Iterator[Tensor]) -> V:
    """Copy of a value with its tensors replaced, in the order of `tensor_fields`; no checks are repeated."""
    if not value.tensor_fields:
        return value
    copy: V = object.__new__(type(value))
    for f, x in _items(value):
        new = next(tensors) if isinstance(x, Tensor) else rebuild(x, tensors) if isinstance(x, Value) else x
        object.__setattr__(copy, f.name, new)
    return copy


def slice_value(value: V, rows: slice, columns: slice) -> V:
    """The value restricted to some rows and columns of the score matrix."""
    return rebuild(value, (slice_tensor(x.tensor, x.axes, rows, columns) for x in value.tensor_fields))


def slice_tensor(tensor: Tensor, axes: str, rows: slice, columns: slice) -> Tensor:
    """View of a tensor restricted to some rows (axis L) and columns (axis S)."""
    for letter, part in (("L", rows), ("S", columns)):
        dim = axis(tensor, axes, letter)
        if dim is not None and tensor.shape[dim] != 1:
            tensor = tensor.narrow(dim, part.start, part.stop - part.start)
    return tensor


def axis(tensor: Tensor, axes: str, letter: str) -> int | None:
    """Dimension (negative) of a tensor along an axis; None if it has none."""
    index = axes.find(letter)
    dim = index - len(axes)
    return dim if index >= 0 and -dim <= tensor.dim() else None


def per_head(x: float | Tensor, dtype: torch.dtype) -> float | Tensor:
    """A number unchanged; a tensor (H,) or () cast to `dtype` and shaped to broadcast to scores (B, H, L, S)."""
    return x.to(dtype)[..., None, None] if isinstance(x, Tensor) else x


def _items(value: Any) -> Iterator[tuple["dataclasses.Field[Any]", Any]]:
    return ((f, getattr(value, f.name)) for f in fields(value))


def _is_default(f: "dataclasses.Field[Any]", x: object) -> bool:
    return not isinstance(x, Tensor) and f.default is not dataclasses.MISSING and bool(x == f.default)


def _show(x: object) -> str:
    if isinstance(x, Tensor):
        if type(x) in (Tensor, nn.Parameter) and x.dim() == 0 and x.is_cpu and not opaque():
            return f"tensor({x.item():.4g})"
        return f"Tensor({', '.join(map(str, x.shape))})"
    return repr(x)
