"""SpecAugment: bands of time and frequency of a spectrogram are hidden in training."""

import torch
from torch import Tensor


def spec_augment(
    spectrograms: Tensor,
    lengths: Tensor,
    *,
    frequency_masks: int = 2,
    frequency_width: int = 15,
    time_masks: int = 2,
    time_share: float = 0.05,
    generator: torch.Generator | None = None,
) -> Tensor:
    """Set random bands of frequency and stretches of time of each spectrogram to its mean.

    Args:
        spectrograms: (B, F, M).
        lengths: (B,), frames of sound.
        frequency_masks: number of bands for each spectrogram.
        frequency_width: maximum width of a band, in mel bands.
        time_masks: number of stretches for each spectrogram.
        time_share: maximum length of a stretch, as a share of the sound.
        generator: of the draws; None for torch's default one.

    Returns:
        (B, F, M), a copy.

    Source: Park et al. 2019, arXiv 1904.08779, section 2, without time warping; stretches relative to the length: Park
    et al. 2020, arXiv 1912.05533, section 3.
    """
    batch, frames, mels = spectrograms.shape
    hidden = torch.zeros(batch, frames, mels, dtype=torch.bool)

    def spans(count: int, widest: Tensor, sizes: Tensor, places: int) -> Tensor:
        """Random spans as booleans (B, positions): True inside a span."""
        width = (torch.rand(batch, count, generator=generator) * (widest[:, None] + 1)).floor()
        start = (torch.rand(batch, count, generator=generator) * (sizes[:, None] - width + 1).clamp(min=0)).floor()
        place = torch.arange(places)
        inside = (place >= start[..., None]) & (place < (start + width)[..., None])
        return inside.any(1)

    if frequency_masks:
        widest = torch.full((batch,), float(min(frequency_width, mels)))
        hidden |= spans(frequency_masks, widest, torch.full((batch,), float(mels)), mels)[:, None, :]
    if time_masks:
        hidden |= spans(time_masks, (time_share * lengths).floor(), lengths.float(), frames)[:, :, None]
    sound = (torch.arange(frames) < lengths[:, None])[..., None]
    mean = (spectrograms * sound).sum((1, 2), keepdim=True) / (lengths.clamp(min=1) * mels)[:, None, None]
    return torch.where(hidden & sound, mean.to(spectrograms.dtype), spectrograms)
