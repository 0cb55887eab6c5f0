"""Sound as models read it: mono, 16 kHz, float32 in -1..1."""

from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, final

import numpy as np

from regard.audio.decoding import PEAK_LIMIT, Decoded, RawFormat, Samples, SoundSource, decode, source_name
from regard.errors import DataError

SAMPLE_RATE: Final = 16_000  # Hz
MIN_SECONDS: Final = 0.025  # a window of the spectrogram
CLIPPED: Final = 0.9999  # amplitude from which a sample counts as clipped
QUIET: Final = 1e-3  # root mean square, -60 dB of full scale, below which a piece of sound counts as silent
PIECE: Final = 1600  # samples of such a piece: 0.1 s
SUFFIXES: Final = {
    ".wav", ".flac", ".ogg", ".oga", ".opus", ".mp3", ".aiff", ".aif", ".au", ".caf", ".m4a", ".mp4", ".webm", ".g722",
}  # fmt: skip


def is_sound_name(path: Path) -> bool:
    """Whether a file's name ends as that of a sound."""
    return path.suffix.lower() in SUFFIXES


@final
@dataclass
class SoundInfo:
    """Format and levels of a sound before its conversion, filled in while it is read.

    Args:
        name: of its source.
        format: such as "WAV PCM_16".
        rate: samples a second of its source.
        channels: of its source, averaged to one.
        samples: number at 16 kHz.
        peak: largest amplitude of the source.
        clipped: number of the source's samples at full scale.
        quiet: seconds below -60 dB of full scale.
    """

    name: str
    format: str
    rate: int
    channels: int
    samples: int = 0
    peak: float = 0.0
    clipped: int = 0
    quiet: float = 0.0

    @property
    def seconds(self) -> float:
        """The length."""
        return self.samples / SAMPLE_RATE

    def __str__(self) -> str:
        parts = [f"{self.name}: {self.seconds:.2f} s, {self.format}, {self.rate:,} Hz"]
        if self.rate != SAMPLE_RATE:
            parts[-1] += f" resampled to {SAMPLE_RATE:,}"
        parts.append(f"{self.channels} channels averaged" if self.channels > 1 else "mono")
        parts.append(f"peak {self.peak:.3f}")
        if self.clipped:
            parts.append(f"{self.clipped:,} samples clipped")
        if self.quiet:
            parts.append("silent" if self.quiet >= self.seconds - 1e-6 else f"{self.quiet:.1f} s of silence")
        return ", ".join(parts)


@final
@dataclass(frozen=True)
class Sound:
    """A whole sound.

    Args:
        samples: (N,) float32 at 16 kHz.
        info: what it was before.
    """

    samples: Samples
    info: SoundInfo


@final
class SoundReader:
    """Reader of a sound in blocks, so that memory does not grow with its length.

    Iterating gives blocks (N,) of float32 at 16 kHz; it closes the source at its end. `info` is complete then.

    Args:
        source: path of a file; its bytes, or a binary file; or (samples, rate), where samples are (N,) or
            (N, channels), floats in -1..1 or int16.
        raw: format of raw samples; None for a file whose header tells it.

    Raises:
        DataError: a source that is missing, damaged, no sound, shorter than 0.025 s, or has samples that are not
            finite; or soundfile, soxr or av is not installed. A file may turn out damaged while it is read.
    """

    def __init__(self, source: SoundSource, raw: RawFormat | None = None) -> None:
        with ExitStack() as stack:
            self._decoded: Decoded = decode(source, stack, raw)
            self._resampler = _resampler(self._decoded.rate)
            self._stack = stack.pop_all()
        self.info = SoundInfo(source_name(source), self._decoded.format, self._decoded.rate, self._decoded.channels)

    def __iter__(self) -> Iterator[Samples]:
        with self._stack:
            for block in self._decoded.blocks:
                mono = self._mono(block)
                yield self._measure(mono if self._resampler is None else self._resampler.resample_chunk(mono))
            if self._resampler is not None:
                rest = self._resampler.resample_chunk(np.zeros(0, np.float32), last=True)
                yield self._measure(rest)
        if self.info.seconds < MIN_SECONDS:
            count = self.info.samples
            what = f"{count:,} sample{'s' * (count > 1)} at {SAMPLE_RATE:,} Hz" if count else "no samples"
            raise DataError(f"{self.info.name} has {what}; expected at least {MIN_SECONDS} s of sound")

    def _mono(self, block: Samples) -> Samples:
        peak = float(np.abs(block).max(initial=0))
        if not peak <= PEAK_LIMIT:
            what = "samples that are not finite" if not np.isfinite(peak) else f"samples up to {peak:.3g}"
            raise DataError(f"{self.info.name} has {what}; expected amplitudes in -1..1: convert it")
        self.info.peak = max(self.info.peak, peak)
        self.info.clipped += int((np.abs(block) >= CLIPPED).sum()) if peak >= CLIPPED else 0
        mono: Samples = block[:, 0] if block.shape[1] == 1 else block.mean(1)
        return np.ascontiguousarray(mono)

    def _measure(self, block: Samples) -> Samples:
        self.info.samples += len(block)
        whole = len(block) // PIECE * PIECE
        pieces = [*block[:whole].reshape(-1, PIECE), *([block[whole:]] if len(block) > whole else [])]
        self.info.quiet += sum(len(x) for x in pieces if float(np.sqrt(np.square(x).mean())) < QUIET) / SAMPLE_RATE
        return block


def read_sound(source: SoundSource, raw: RawFormat | None = None) -> Sound:
    """Read a whole sound: mono, 16 kHz.

    Args:
        source, raw: as `SoundReader` takes them.

    Returns:
        The sound.

    Raises:
        DataError: as `SoundReader` raises it.
    """
    reader = SoundReader(source, raw)
    blocks = list(reader)
    return Sound(blocks[0] if len(blocks) == 1 else np.concatenate(blocks), reader.info)


def _resampler(rate: int) -> Any:
    """A resampler to 16 kHz that keeps its state between blocks; None if there is nothing to do."""
    if rate == SAMPLE_RATE:
        return None
    try:
        import soxr
    except ImportError as error:
        raise DataError("sound needs the packages soundfile and soxr: pip install 'regard[audio]'") from error
    return soxr.ResampleStream(rate, SAMPLE_RATE, 1, dtype="float32")
