"""Where a model runs."""

import torch

from regard.errors import ConfigError

KINDS = ("cpu", "cuda", "mps")
KNOWN_DEVICES = "auto, cpu, cuda, cuda:0 (a GPU by number) or mps"


def device_of(name: str | torch.device) -> torch.device:
    """The device of a name.

    Args:
        name: cpu, cuda, cuda:0 (a GPU by number), mps, or auto: a CUDA GPU where there is one, else the CPU.

    Returns:
        The device.

    Raises:
        ConfigError: a name of no device, or a device that is not there.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    kind = str(name).split(":")[0]
    if kind not in KINDS:
        raise ConfigError(f"device={str(name)!r} is unknown; give {KNOWN_DEVICES}")
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise ConfigError(f"device={str(name)!r} is no device; give {KNOWN_DEVICES}") from error
    counts = {"cpu": 1, "cuda": torch.cuda.device_count(), "mps": int(torch.backends.mps.is_available())}
    if not counts[kind]:
        raise ConfigError(f"device={str(name)!r}: PyTorch sees none here; give cpu")
    if device.index is not None and device.index >= counts[kind]:
        raise ConfigError(
            f"device={str(name)!r}: PyTorch sees {counts[kind]} here, numbered from 0; give {kind}:{counts[kind] - 1}"
        )
    return device
