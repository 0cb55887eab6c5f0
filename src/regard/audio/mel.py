"""Log-mel spectrograms, as Whisper's models read them."""

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from functools import lru_cache
from typing import Any, Final, final

import numpy as np
import torch
from torch import Tensor

from regard.audio.decoding import Samples
from regard.audio.sound import SAMPLE_RATE
from regard.errors import ConfigError

WINDOW: Final = 400  # samples of a frame: 25 ms
HOP: Final = 160  # samples from frame to frame: 10 ms
FRAME_RATE: Final = SAMPLE_RATE // HOP  # frames a second
FLOOR: Final = 1e-10  # least power of a mel band
RANGE: Final = 8.0  # dynamic range, in powers of ten below the maximum
EDGE: Final = WINDOW // 2  # samples that are mirrored at both ends, so that frames are centered
BLOCK_FRAMES: Final = 1000
MAX_MELS: Final = 512
# Slaney's mel scale: linear below 1 kHz, logarithmic above.
LINEAR_END, LINEAR_STEP, LOG_STEP = 1000.0, 200.0 / 3, np.log(6.4) / 27
FIXED: Final = {
    "feature_extractor_type": "WhisperFeatureExtractor", "sampling_rate": SAMPLE_RATE, "n_fft": WINDOW,
    "hop_length": HOP, "padding_value": 0.0, "dither": 0.0, "padding_side": "right",
}  # fmt: skip


@final
@dataclass(frozen=True, kw_only=True)
class AudioProcessor:
    """How sound becomes a model's input: log-mel spectrograms, a frame each 10 ms.

    Args:
        num_mels: bands of the spectrogram.
        chunk_seconds: length of a model's window.

    Raises:
        ConfigError: a value out of range.

    Source: Radford et al. 2022, arXiv 2212.04356, section 2.2.
    """

    num_mels: int = 80
    chunk_seconds: int = 30

    def __post_init__(self) -> None:
        for name, x, maximum in (("num_mels", self.num_mels, MAX_MELS), ("chunk_seconds", self.chunk_seconds, 3600)):
            if type(x) is not int or not 1 <= x <= maximum:
                raise ConfigError(f"{name}={x!r}; expected a whole number from 1 to {maximum:,}")

    @property
    def window_frames(self) -> int:
        """Frames of a model's window."""
        return self.chunk_seconds * FRAME_RATE

    def powers(self, blocks: Iterable[Samples], frames: int = 0) -> Iterable[Tensor]:
        """Logarithms of a sound's mel bands, block by block.

        Args:
            blocks: of samples (N,) at 16 kHz, as `SoundReader` gives them.
            frames: that the sound is padded to with silence; shorter or 0 for no padding.

        Yields:
            (F, num_mels) float32, powers of ten; N / 160 frames in all, rounded down.
        """
        return _powers(blocks, mel_filters(self.num_mels), frames)

    def normalized(self, powers: Tensor, peak: float | None = None) -> Tensor:
        """Numbers as a model reads them: at most 8 powers of ten below the loudest, scaled.

        Args:
            powers: (F, num_mels), of `powers`.
            peak: largest of the whole sound's; None for that of `powers`.

        Returns:
            (F, num_mels).
        """
        largest = powers.max() if peak is None else peak
        return (powers.clamp(min=largest - RANGE) + 4) / 4

    def __call__(self, samples: Samples, *, pad: bool = True) -> Tensor:
        """Model input of one sound.

        Args:
            samples: (N,) float32 at 16 kHz.
            pad: whether to pad with silence to a model's window. What is longer is not cut.

        Returns:
            (F, num_mels) float32.
        """
        powers = list(self.powers([samples], self.window_frames if pad else 0))
        return self.normalized(torch.cat(powers) if powers else torch.zeros(0, self.num_mels))

    def to_plain(self) -> dict[str, Any]:
        """The fields as JSON's types."""
        return asdict(self)

    @staticmethod
    def from_plain(plain: Mapping[str, Any]) -> "AudioProcessor":
        """The processor that `to_plain` described; ConfigError for unknown fields."""
        unknown = sorted(set(plain) - set(AudioProcessor.__dataclass_fields__))
        if unknown:
            raise ConfigError(f"audio: unknown settings {', '.join(unknown)}; expected those of AudioProcessor")
        return AudioProcessor(**plain)

    def to_published(self) -> dict[str, Any]:
        """The fields of a preprocessor_config.json."""
        frames = self.window_frames
        return {
            **FIXED,
            "feature_size": self.num_mels,
            "chunk_length": self.chunk_seconds,
            "n_samples": frames * HOP,
            "nb_max_frames": frames,
            "return_attention_mask": False,
            "processor_class": "WhisperProcessor",
        }

    @staticmethod
    def from_published(fields: Mapping[str, Any]) -> "AudioProcessor":
        """The processor that a preprocessor_config.json describes.

        Args:
            fields: of the file.

        Returns:
            The processor.

        Raises:
            ConfigError: a value that is not known.
        """
        for name, only in FIXED.items():
            if fields.get(name, only) not in (only, None):
                raise ConfigError(f"{name}={fields[name]!r} is not known; expected {only!r}")
        return AudioProcessor(num_mels=fields.get("feature_size", 80), chunk_seconds=fields.get("chunk_length", 30))

    def to_json(self) -> bytes:
        """The content of a preprocessor_config.json."""
        return (json.dumps(self.to_published(), indent=2) + "\n").encode()


@lru_cache
def mel_filters(num_mels: int) -> Tensor:
    """Triangular filters of equal area on Slaney's mel scale, 0 to 8 kHz.

    Args:
        num_mels: bands.

    Returns:
        (201, num_mels) float32: weights of the frequencies of a frame.

    Source: Slaney 1998, "Auditory Toolbox", the scale and the areas.
    """
    ends = np.array([0.0, SAMPLE_RATE / 2])
    mels = np.where(
        ends < LINEAR_END, ends / LINEAR_STEP, LINEAR_END / LINEAR_STEP + np.log(ends.clip(1) / LINEAR_END) / LOG_STEP
    )
    mels = np.linspace(*mels, num_mels + 2)
    first = LINEAR_END / LINEAR_STEP
    hertz = np.where(mels < first, mels * LINEAR_STEP, LINEAR_END * np.exp(LOG_STEP * (mels - first)))
    frequencies = np.linspace(0, SAMPLE_RATE / 2, WINDOW // 2 + 1)
    slopes, widths = hertz - frequencies[:, None], np.diff(hertz)
    triangles = np.maximum(0, np.minimum(-slopes[:, :-2] / widths[:-1], slopes[:, 2:] / widths[1:]))
    return torch.from_numpy((triangles * 2 / (hertz[2:] - hertz[:-2])).astype(np.float32))


def _powers(blocks: Iterable[Samples], filters: Tensor, frames: int) -> Iterable[Tensor]:
    window = torch.hann_window(WINDOW)
    pending = np.zeros(0, np.float32)  # samples from the beginning of the next frame's window on
    count, done = 0, 0  # samples read; frames given
    for block in blocks:
        pending = np.concatenate([pending, block])
        if count <= EDGE < count + len(block):  # the beginning, mirrored
            pending = np.concatenate([pending[EDGE:0:-1], pending])
        count += len(block)
        if count <= EDGE:
            continue
        ready = max(0, (len(pending) - WINDOW) // HOP + 1) if len(pending) >= WINDOW else 0
        for start in range(0, ready, BLOCK_FRAMES):
            end = min(start + BLOCK_FRAMES, ready)
            yield _frames(pending[start * HOP : (end - 1) * HOP + WINDOW], window, filters)
        pending, done = pending[ready * HOP :], done + ready
    total = max(count // HOP, frames)
    padding = max(0, total * HOP - count)
    if count <= EDGE:
        padding = max(padding, WINDOW)
        pending = np.concatenate([pending, np.zeros(padding, np.float32)])
        pending, padding = np.concatenate([pending[EDGE:0:-1], pending]), 0
    # Zeros as far as windows of frames reach that hold sound; further frames are silent.
    zeros = min(padding, WINDOW + HOP)
    pending = np.concatenate([pending, np.zeros(zeros, np.float32)])
    if zeros == padding:
        pending = np.concatenate([pending, pending[-2 : -EDGE - 2 : -1]])
    audible = min((len(pending) - WINDOW) // HOP + 1, total - done)
    if audible > 0:
        yield _frames(pending[: (audible - 1) * HOP + WINDOW], window, filters)
    if (silent := total - done - max(audible, 0)) > 0:
        yield torch.full((silent, filters.shape[1]), float(np.log10(FLOOR)))


def _frames(samples: Samples, window: Tensor, filters: Tensor) -> Tensor:
    """Logarithms of the mel bands of all frames that lie within the samples."""
    framed = torch.from_numpy(samples).unfold(0, WINDOW, HOP) * window
    spectrum = torch.view_as_real(torch.fft.rfft(framed))
    return (spectrum.square().sum(-1) @ filters).clamp_(min=FLOOR).log10_()
