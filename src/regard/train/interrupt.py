"""Signals that stop a run after a step: Ctrl-C, SIGTERM (of a scheduler), SIGHUP (of a terminal that closes)."""

import contextlib
import os
import signal
from collections.abc import Iterator

NAMES = ("SIGINT", "SIGTERM", "SIGHUP")
STANDARD_ERROR = 2


@contextlib.contextmanager
def interrupts() -> Iterator[list[int]]:
    """A list to which such a signal is added instead of ending the program; a second one of a kind ends it.

    A signal that is ignored, as nohup ignores SIGHUP, stays so, and so does a handler of the caller's own.
    """
    received: list[int] = []
    usual = {}
    for name in NAMES:
        number = getattr(signal, name, None)  # Windows has no SIGHUP
        if number is not None and signal.getsignal(number) in (signal.SIG_DFL, signal.default_int_handler):
            usual[number] = signal.getsignal(number)

    def note(number: int, frame: object) -> None:
        received.append(number)
        signal.signal(number, usual[signal.Signals(number)])
        name = "Ctrl-C" if number == signal.SIGINT else signal.Signals(number).name
        # A stream of Python's may be in the middle of a call when a signal comes.
        with contextlib.suppress(OSError):  # the terminal is gone
            os.write(STANDARD_ERROR, f"\n{name}: stopping after this step; once more stops at once\n".encode())

    try:
        for number in usual:
            signal.signal(number, note)
    except ValueError:  # not the main thread, to which no signal comes
        yield received
        return
    try:
        yield received
    finally:
        for number, handler in usual.items():
            signal.signal(number, handler)


def ending(number: int, message: str) -> BaseException:
    """What ends a program after a signal: Ctrl-C's exception, or the exit code that shells give the signal."""
    return KeyboardInterrupt(message) if number == signal.SIGINT else SystemExit(128 + number)
