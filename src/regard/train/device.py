"""Device of a run and precision of its matrix products."""

import os

import torch

from regard.checkpoints.device import device_of


def pick_device(name: str) -> torch.device:
    """Device by name; under torchrun, one GPU per process.

    Raises:
        ConfigError: an unavailable device.
    """
    device = device_of(name)
    if device.type == "cuda" and "LOCAL_RANK" in os.environ:
        device = device_of(f"cuda:{os.environ['LOCAL_RANK']}")
    if device.index is not None and device.type == "cuda":
        torch.cuda.set_device(device)  # the device that object collectives use
    return device


def pick_precision(name: str, device: torch.device) -> torch.dtype:
    """Data type of matrix products by name; "auto" is bfloat16 on devices that multiply it faster than float32."""
    if name != "auto":
        return torch.bfloat16 if name == "bfloat16" else torch.float32
    if device.type == "cuda":
        fast = torch.cuda.is_bf16_supported(including_emulation=False)
    else:
        fast = device.type == "cpu" and (torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported())
    return torch.bfloat16 if fast else torch.float32
