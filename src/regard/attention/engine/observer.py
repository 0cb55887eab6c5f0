"""Observers of `attend`: what a recorder is told of every call in its thread."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from threading import Lock
from typing import Any, TypeVar

from torch import Tensor

T = TypeVar("T")  # what `attend` returns: a tensor, or that and a summary
# Called with (output, query, key, value, the other arguments of `attend`); returns the output to use instead, or None.
Observer = Callable[[Tensor, Tensor, Tensor, Tensor, Mapping[str, Any]], Tensor | None]

count = 0  # observers of all threads: `attend` asks for those of its own only where there are some
_lock = Lock()
_observers: ContextVar[tuple[Observer, ...]] = ContextVar("observers", default=())


def current() -> tuple[Observer, ...]:
    """The observers of this thread, outermost first."""
    return _observers.get()


@contextmanager
def observe(observer: Observer) -> Iterator[None]:
    """Tell an observer of the calls of `attend` inside the block, in this thread."""
    global count
    token = _observers.set((*_observers.get(), observer))
    with _lock:
        count += 1
    try:
        yield
    finally:
        with _lock:
            count -= 1
        _observers.reset(token)


@contextmanager
def unobserved() -> Iterator[None]:
    """Tell nobody of the calls inside the block, in this thread."""
    token = _observers.set(())
    try:
        yield
    finally:
        _observers.reset(token)


def notify(
    observers: tuple[Observer, ...],
    result: T,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    arguments: Mapping[str, Any],
) -> T:
    """Tell observers of a finished call.

    Args:
        observers: whom to tell, outermost first.
        result: what `attend` returned.
        query, key, value: its inputs.
        arguments: its other arguments.

    Returns:
        The result, with the output that observers gave in its place.
    """
    both: Any = result
    output, summary_result = both if isinstance(both, tuple) else (both, None)
    for observer in reversed(observers):
        replaced = observer(output, query, key, value, arguments)
        output = output if replaced is None else replaced
    observed: Any = output if summary_result is None else (output, summary_result)
    return observed  # type: ignore[no-any-return]
