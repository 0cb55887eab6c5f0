"""Misuses of the native kernels' environment: see `cases.py`."""

import os
from collections.abc import Callable
from unittest.mock import patch

from regard import kernels
from regard.errors import ConfigError


def loaded(**environment: str) -> object:
    """The module, as a new process would load it."""
    with patch.dict(os.environ, environment):
        return kernels.module.__wrapped__()


CASES: list[tuple[str, Callable[[], object], type[Exception], str]] = [
    ("kernels-isa", lambda: loaded(REGARD_ISA="avx3"), ConfigError, "REGARD_ISA='avx3' is no instruction set of this"),
    ("kernels-path", lambda: loaded(REGARD_NATIVE="a.txt"), ConfigError, "REGARD_NATIVE='a.txt' is no compiled module"),
]
