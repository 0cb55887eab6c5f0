"""Signals that stop a run after a step: Ctrl-C, SIGTERM (from a scheduler), SIGHUP (from a terminal that closes)."""

import contextlib
import os
import signal
from collections.abc import Iterator

NAMES = ("SIGINT", "SIGTERM", "SIGHUP")
STANDARD_ERROR = 2


@contextlib.contextmanager
def interrupts() -> Iterator[list[int]]:
    """Context with a list that collects these signals instead of ending the program; a second signal ends it.

    Signals that are ignored, as nohup ignores SIGHUP, stay ignored; handlers of the caller stay in place.
    """
    received: list[int] = []
    default_handlers = {}
    for name in NAMES:
        number = getattr(signal, name, None)  # Windows has no SIGHUP
        if number is not None and signal.getsignal(number) in (signal.SIG_DFL, signal.default_int_handler):
            default_handlers[number] = signal.getsignal(number)

    def collect(number: int, frame: object) -> None:
        received.append(number)
        signal.signal(number, default_handlers[signal.Signals(number)])
        name = "Ctrl-C" if number == signal.SIGINT else signal.Signals(number).name
        # Not through sys.stderr, which may be in the middle of a call when a signal arrives.
        with contextlib.suppress(OSError):  # the terminal is gone
            os.write(STANDARD_ERROR, f"\n{name}: stopping after this step; again to stop at once\n".encode())

    try:
        for number in default_handlers:
            signal.signal(number, collect)
    except ValueError:  # not the main thread, which alone receives signals
        yield received
        return
    try:
        yield received
    finally:
        for number, handler in default_handlers.items():
            signal.signal(number, handler)


def ending(number: int, message: str) -> BaseException:
    """Exception that ends the program after a signal: KeyboardInterrupt, or SystemExit with the signal's exit code."""
    return KeyboardInterrupt(message) if number == signal.SIGINT else SystemExit(128 + number)
