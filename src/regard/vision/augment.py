"""Random crops and flips of pictures, as tensors."""

import torch
from torch import Tensor
from torch.nn import functional


def augment(pictures: Tensor, *, padding: int, flip: bool, generator: torch.Generator) -> Tensor:
    """Pictures shifted by a random crop of their padded selves, half of them mirrored.

    Args:
        pictures: (B, C, H, W) of any type.
        padding: black pixels added at each side before the crop; 0 for no crop.
        flip: whether each picture is mirrored left to right with probability 1/2.
        generator: of the random numbers, on the CPU; each picture takes three.

    Returns:
        The same shape and type.

    Source: He et al. 2015, "Deep Residual Learning for Image Recognition", arXiv 1512.03385, section 4.2.
    """
    batch, _, height, width = pictures.shape
    draws = torch.rand(batch, 3, generator=generator)
    offsets = (draws[:, :2] * (2 * padding + 1)).long().to(pictures.device)
    mirrored = (draws[:, 2] < 0.5).to(pictures.device) & flip
    padded = functional.pad(pictures, (padding,) * 4)
    rows = offsets[:, :1] + torch.arange(height, device=pictures.device)
    columns = offsets[:, 1:] + torch.arange(width, device=pictures.device)
    columns = torch.where(mirrored[:, None], columns.flip(1), columns)
    numbers = torch.arange(batch, device=pictures.device)[:, None, None]
    return padded[numbers, :, rows[:, :, None], columns[:, None]].permute(0, 3, 1, 2)
