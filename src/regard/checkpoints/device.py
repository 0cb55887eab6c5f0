"""Devices by name."""

import torch

from regard.errors import ConfigError

KINDS = ("cpu", "cuda", "mps")
KNOWN_DEVICES = "auto, cpu, cuda, cuda:0 (the index of a GPU) or mps"


def device_of(name: str | torch.device) -> torch.device:
    """The device of a name.

    Args:
        name: cpu, cuda, cuda:0 (the index of a GPU), mps, or auto: a CUDA GPU if there is one, else the CPU.

    Returns:
        The device.

    Raises:
        ConfigError: an unknown name, or a device that is not available.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    kind = str(name).split(":")[0]
    if kind not in KINDS:
        raise ConfigError(f"device={str(name)!r} is unknown; expected {KNOWN_DEVICES}")
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise ConfigError(f"device={str(name)!r} is not a device; expected {KNOWN_DEVICES}") from error
    counts = {"cpu": 1, "cuda": torch.cuda.device_count(), "mps": int(torch.backends.mps.is_available())}
    if not counts[kind]:
        raise ConfigError(f"device={str(name)!r} is not available: PyTorch finds no such device; use cpu")
    if device.index is not None and device.index >= counts[kind]:
        raise ConfigError(
            f"device={str(name)!r} is not available: PyTorch finds {counts[kind]}, numbered from 0; expected at most "
            f"{kind}:{counts[kind] - 1}"
        )
    return device
