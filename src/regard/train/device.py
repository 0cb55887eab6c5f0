"""The device of a run, and the precision of its matrix products."""

import os

import torch

from regard.errors import ConfigError


def pick_device(name: str) -> torch.device:
    """The device of a name; "auto" is a GPU where there is one.

    Raises:
        ConfigError: a device that is not there.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    there = {"cuda": torch.cuda.is_available, "mps": torch.backends.mps.is_available}.get(name.split(":")[0])
    if there is not None and not there():
        raise ConfigError(f"device={name!r}: PyTorch sees none here; give cpu")
    if name.startswith("cuda") and "LOCAL_RANK" in os.environ:
        name = f"cuda:{os.environ['LOCAL_RANK']}"
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise ConfigError(f"device={name!r} is no device; give cpu, cuda, cuda:0 or mps") from error
    if device.index is not None and device.type == "cuda":
        torch.cuda.set_device(device)  # where collectives of objects go
    return device


def pick_precision(name: str, device: torch.device) -> torch.dtype:
    """What matrix products are computed in; "auto" is bfloat16 where the device multiplies it faster."""
    if name != "auto":
        return torch.bfloat16 if name == "bfloat16" else torch.float32
    if device.type == "cuda":
        fast = torch.cuda.is_bf16_supported(including_emulation=False)
    else:
        fast = device.type == "cpu" and (torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported())
    return torch.bfloat16 if fast else torch.float32
