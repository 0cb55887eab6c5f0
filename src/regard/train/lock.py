"""Lock of a run's folder, which one process at a time may hold."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from regard.errors import ConfigError


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Context that holds the lock; the system releases it when the process ends, however it ends.

    Raises:
        ConfigError: another process holds the lock.
    """
    try:
        import fcntl
    except ImportError:  # Windows has no such locks
        yield
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise ConfigError(
                f"another process trains in {folder}; wait until it ends, or give another --out"
            ) from error
        yield
    finally:
        os.close(handle)
