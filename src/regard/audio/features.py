"""Spectrogram of a sound by frames, in memory or, if it is long, in a temporary file."""

import tempfile
from collections.abc import Iterator
from typing import IO, Final, final

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from regard.audio.decoding import RawFormat, Samples, SoundSource
from regard.audio.mel import HOP, AudioProcessor
from regard.audio.sound import SoundInfo, SoundReader
from regard.audio.spectrogram import SpectrogramProcessor

IN_MEMORY: Final = 12_000  # frames, 2 minutes, from which on they are written to a file


@final
class SoundFeatures:
    """The spectrogram and the loudness of a sound, frame by frame.

    The sound is read in blocks when this is made; memory does not grow with its length but for 4 bytes a frame.

    Args:
        source, raw: as `SoundReader` takes them.
        processor: how sound becomes a model's input.

    Raises:
        DataError: as `SoundReader` raises it.
    """

    def __init__(
        self, source: SoundSource, processor: AudioProcessor | SpectrogramProcessor, raw: RawFormat | None = None
    ) -> None:
        self.processor = processor
        self._reader = SoundReader(source, raw)
        self._energies: list[Samples] = []
        self._parts: list[Tensor] = []
        self._file: IO[bytes] | None = None
        self._stored, self._peak = 0, float("-inf")
        for powers in processor.powers(self._blocks(), processor.window_frames):
            self._peak = max(self._peak, float(powers.max()))
            self._stored += len(powers)
            self._parts.append(powers)
            if self._stored > IN_MEMORY:
                self._spool()
        if self._file is None:
            self._parts = [torch.cat(self._parts)]
        self.energies: Samples = np.concatenate(self._energies)
        self._energies = []

    @property
    def info(self) -> SoundInfo:
        """Format of the sound before its conversion."""
        return self._reader.info

    @property
    def frames(self) -> int:
        """Frames of sound, without padding."""
        return self.info.samples // HOP

    def window(self, start: int, count: int) -> Tensor:
        """Some of the frames, as a model reads them.

        Args:
            start: number of the first frame.
            count: of frames; what lies beyond the sound and the silence that pads it to a model's window is 0.

        Returns:
            (count, num_mels) float32.
        """
        end = min(start + count, self._stored)
        if self._file is None:
            powers = self._parts[0][start:end]
        else:
            width = 4 * self.processor.num_mels
            self._file.seek(start * width)
            data = bytearray(self._file.read((end - start) * width))
            powers = torch.frombuffer(data, dtype=torch.float32).view(-1, self.processor.num_mels)
        return functional.pad(self.processor.normalized(powers, self._peak), (0, 0, 0, count - len(powers)))

    def close(self) -> None:
        """Delete the temporary file, if there is one."""
        if self._file is not None:
            self._file.close()

    def _blocks(self) -> Iterator[Samples]:
        """The blocks of the sound, whose energies are kept: the mean square of each frame's 10 ms."""
        rest = np.zeros(0, np.float32)
        for block in self._reader:
            samples = np.concatenate([rest, block])
            whole = len(samples) // HOP * HOP
            self._energies.append(np.square(samples[:whole].reshape(-1, HOP)).mean(1))
            rest = samples[whole:]
            yield block

    def _spool(self) -> None:
        if self._file is None:
            self._file = tempfile.TemporaryFile(prefix="regard-sound-")  # noqa: SIM115 - `close` does
        for part in self._parts:
            self._file.write(part.numpy().tobytes())
        self._parts = []
