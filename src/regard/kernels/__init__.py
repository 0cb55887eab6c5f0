"""C++ kernels for attention, linear maps and decoding steps: availability and instruction set.

The sources are compiled once for each instruction set and know nothing of PyTorch, so one build serves all its
versions. `attention/backends/native/`, `layers/linear.py` and `layers/step.py` call them.
"""

import importlib
import importlib.util
import os
from functools import lru_cache
from types import ModuleType

from regard.errors import ConfigError, nearest

ISA = "REGARD_ISA"  # environment: a lesser instruction set, for testing
NATIVE = "REGARD_NATIVE"  # environment: the path of another build of the module, for testing


@lru_cache(maxsize=1)
def missing() -> str | None:
    """Why the kernels are not there; None if they are.

    Returns:
        The reason, in words.

    Raises:
        ConfigError: an instruction set in the environment that there is none of.
    """
    try:
        module()
    except ImportError as error:
        if not isinstance(error, ModuleNotFoundError):
            return f"the module of C++ kernels cannot be loaded: {error}"
        return "installed without its C++ kernels; install where there is a C++ compiler (in a checkout: make)"
    return None


@lru_cache(maxsize=1)
def module() -> ModuleType:
    """The compiled module.

    Returns:
        `regard.kernels._native`.

    Raises:
        ConfigError: an instruction set in the environment that there is none of.
    """
    path = os.environ.get(NATIVE)
    if path is None:
        native = importlib.import_module("regard.kernels._native")
    else:
        spec = importlib.util.spec_from_file_location("_native", path)
        if spec is None or spec.loader is None:
            raise ConfigError(f"{NATIVE}={path!r} is no compiled module")
        native = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(native)
    isa = os.environ.get(ISA)
    if isa is not None and not native.choose(isa):
        raise ConfigError(
            f"{ISA}={isa!r} is no instruction set of this processor and build; {nearest(isa, native.isas())}"
        )
    return native


def isa() -> str:
    """The instruction set that runs.

    Returns:
        Its name: baseline, avx2, avx512, avx512_bf16 or amx.

    Raises:
        ConfigError: an instruction set in the environment that there is none of.
    """
    return str(module().isa())
