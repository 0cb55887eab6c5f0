"""Log-mel spectrograms of mean 0 and variance 1, as recognizers that are trained from nothing read them."""

import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any, ClassVar, Final, final

import torch
from torch import Tensor

from regard.audio.decoding import Samples
from regard.audio.mel import RANGE, AudioProcessor
from regard.errors import ConfigError

SMALLEST: Final = 0.1  # deviation, in powers of ten, below which nothing is amplified further


@final
@dataclass(frozen=True, kw_only=True)
class SpectrogramProcessor:
    """How sound becomes a recognizer's input: normalized log-mel spectrograms, a frame each 10 ms.

    They are (x - mean) / deviation, with x in powers of ten, at most 8 below the loudest of the sound.

    Args:
        num_mels: bands of the spectrogram.
        mean: of each band over a corpus, (num_mels,); None for the mean over all bands and frames of the utterance
            itself, which does not depend on its loudness.
        deviation: standard deviation of each band, or None, likewise.

    Raises:
        ConfigError: a value out of range, or statistics of another number of bands.
    """

    num_mels: int = 80
    mean: tuple[float, ...] | None = None
    deviation: tuple[float, ...] | None = None

    window_frames: ClassVar[int] = 0  # sounds are not padded

    def __post_init__(self) -> None:
        AudioProcessor(num_mels=self.num_mels)  # which checks it
        for name in ("mean", "deviation"):
            x = getattr(self, name)
            if (x is None) != (self.mean is None) or (x is not None and len(x) != self.num_mels):
                raise ConfigError(
                    f"SpectrogramProcessor: {name} has {'none' if x is None else len(x)} of num_mels={self.num_mels} "
                    "bands; expected mean and deviation of all, or neither"
                )

    def powers(self, blocks: Iterable[Samples], frames: int = 0) -> Iterable[Tensor]:
        """Logarithms of a sound's mel bands, block by block; see `AudioProcessor.powers`."""
        return AudioProcessor(num_mels=self.num_mels).powers(blocks, frames)

    def normalized(self, powers: Tensor, peak: float | None = None) -> Tensor:
        """Numbers as a model reads them.

        Args:
            powers: (F, num_mels), of `powers`; at least one frame.
            peak: largest of the whole sound's; None for that of `powers`.

        Returns:
            (F, num_mels) float32.
        """
        x = _above_floor(powers, peak)
        if self.mean is None or self.deviation is None:
            deviation, mean = torch.std_mean(x, correction=0)
        else:
            mean, deviation = torch.tensor(self.mean), torch.tensor(self.deviation)
        return (x - mean) / deviation.clamp(min=SMALLEST)

    def __call__(self, samples: Samples) -> Tensor:
        """The model's input of one sound.

        Args:
            samples: (N,) float32 at 16 kHz, N at least 160.

        Returns:
            (N / 160, num_mels) float32, rounded down.
        """
        return self.normalized(torch.cat(list(self.powers([samples]))))

    def of_corpus(self, sounds: Iterable[Samples]) -> "SpectrogramProcessor":
        """A processor with the statistics of some sounds.

        Args:
            sounds: samples (N,) of each, float32 at 16 kHz; at least one.

        Returns:
            The processor.
        """
        count, total, squares = 0, torch.zeros(self.num_mels).double(), torch.zeros(self.num_mels).double()
        for samples in sounds:
            x = _above_floor(torch.cat(list(self.powers([samples]))), None).double()
            count, total, squares = count + len(x), total + x.sum(0), squares + x.square().sum(0)
        mean = total / count
        deviation = (squares / count - mean.square()).clamp(min=0).sqrt()
        return SpectrogramProcessor(num_mels=self.num_mels, mean=_rounded(mean), deviation=_rounded(deviation))

    def to_plain(self) -> dict[str, Any]:
        """The fields as JSON's types."""
        return {name: list(x) if isinstance(x, tuple) else x for name, x in asdict(self).items()}

    @staticmethod
    def from_plain(plain: Mapping[str, Any]) -> "SpectrogramProcessor":
        """The processor that `to_plain` described; ConfigError for unknown fields or values."""
        unknown = sorted(set(plain) - set(SpectrogramProcessor.__dataclass_fields__))
        if unknown:
            raise ConfigError(f"spectrogram: unknown settings {', '.join(unknown)}; expected those that regard wrote")
        statistics = {}
        for name in ("mean", "deviation"):
            x = plain.get(name)
            if x is not None and not (isinstance(x, list) and all(map(is_finite, x))):
                raise ConfigError(f"spectrogram: {name}={x!r:.50}; expected a list of numbers, or null")
            statistics[name] = None if x is None else tuple(map(float, x))
        return SpectrogramProcessor(num_mels=plain.get("num_mels", 80), **statistics)

    def to_json(self) -> bytes:
        """The content of the file beside a model."""
        return (json.dumps(self.to_plain(), indent=2) + "\n").encode()


def is_finite(x: object) -> bool:
    """Whether it is a finite number."""
    return isinstance(x, int | float) and not isinstance(x, bool) and math.isfinite(x)


def _above_floor(powers: Tensor, peak: float | None) -> Tensor:
    return powers.clamp(min=(powers.max() if peak is None else peak) - RANGE)


def _rounded(x: Tensor) -> tuple[float, ...]:
    values: list[float] = x.tolist()
    return tuple(round(value, 6) for value in values)
