"""Decoding of sound files and raw samples, in blocks."""

import io
import shutil
import struct
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Final, NamedTuple, final

import numpy as np

from regard.errors import ConfigError, DataError

SUFFIXES: Final = {
    ".wav", ".flac", ".ogg", ".oga", ".opus", ".mp3", ".aif", ".aiff", ".aifc", ".au", ".caf", ".w64", ".m4a", ".mp4",
    ".m4b", ".mov", ".webm", ".mkv", ".mka", ".aac", ".wma", ".amr", ".g722",
}  # fmt: skip
HEADERLESS: Final = {".g722": "g722"}  # formats that only the file's name tells, as PyAV names them
# Demuxers of FFmpeg that may be used: containers of sound. Others, such as playlists, would open further files.
DEMUXERS: Final = (
    "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,asf,avi,flv,mpegts,aac,amr,ac3,eac3,caf,aiff,au,wav,w64,flac,mp3,ogg,g722,"
    "ape,wv,tta"
)
BLOCK_SECONDS: Final = 10
MIN_RATE, MAX_RATE = 1000, 768_000  # Hz
MAX_CHANNELS: Final = 64
SPOOLED: Final = 1 << 24  # bytes of standard input that stay in memory
PEAK_LIMIT: Final = 100.0  # of float samples, whose full scale is 1
PCM_SCALE: Final = 32768.0  # full scale of 16-bit samples
# What decoders raise on damaged files.
DAMAGED: Final = (
    OSError, ValueError, TypeError, ArithmeticError, LookupError, AttributeError, MemoryError, RuntimeError,
    struct.error,
)  # fmt: skip
Samples = np.ndarray[Any, np.dtype[np.float32]]
SoundSource = str | Path | bytes | IO[bytes] | tuple[Any, int]


class RawFormat(NamedTuple):
    """The format of raw samples: 16-bit integers, little-endian, channels interleaved.

    Args:
        rate: samples a second of each channel.
        channels: their number.
    """

    rate: int
    channels: int = 1


@final
@dataclass(frozen=True)
class Decoded:
    """Decoded sound with the sampling rate and channels of its source.

    Args:
        name: name of the source, for messages.
        format: such as "WAV PCM_16".
        rate: samples a second.
        channels: their number.
        blocks: iterator of samples, (N, channels) float32.
    """

    name: str
    format: str
    rate: int
    channels: int
    blocks: Iterator[Samples]


def is_sound_name(path: Path) -> bool:
    """Whether a file's name ends as that of a sound file."""
    return path.suffix.lower() in SUFFIXES


def source_name(source: SoundSource) -> str:
    """What messages call a source."""
    if isinstance(source, str | Path):
        return str(source)
    return "the array" if isinstance(source, tuple) else "standard input" if hasattr(source, "read") else "the content"


def decode(source: SoundSource, stack: ExitStack, raw: RawFormat | None = None) -> Decoded:
    """Open a source of sound.

    Args:
        source: path of a file; its bytes, or a binary file; or samples (N,) or (N, channels) with their rate.
        stack: that closes what is opened.
        raw: format of raw samples; None for a file whose header tells it.

    Returns:
        The sound, decoded as its blocks are read.

    Raises:
        DataError: a file that is missing, damaged or no sound; a rate or a number of channels out of range; a package
            that is not installed.
    """
    name = source_name(source)
    if isinstance(source, tuple):
        return _from_array(name, source)
    if isinstance(source, str | Path):
        path = Path(source)
        if not path.is_file():
            state = "is a folder" if path.is_dir() else "does not exist"
            raise DataError(f"{path} {state}; expected a sound file")
        try:
            file: Any = stack.enter_context(path.open("rb"))
        except OSError as error:
            raise DataError(f"{path} cannot be read: {error.strerror}") from error
        headerless = HEADERLESS.get(path.suffix.lower())
    else:
        file, headerless = (io.BytesIO(source) if isinstance(source, bytes) else source), None
    if raw is not None:
        return _from_raw(name, file, raw)
    if not file.seekable():  # a pipe
        copied = stack.enter_context(tempfile.SpooledTemporaryFile(SPOOLED))  # noqa: SIM115 - entered
        shutil.copyfileobj(file, copied)
        copied.seek(0)
        file = copied
    if file.read(1) == b"":
        raise DataError(f"{name} is empty; expected a sound file")
    file.seek(0)
    if headerless is not None:
        return _by_av(name, file, stack, headerless)
    return _by_soundfile(name, file, stack)


def check_format(name: str, rate: Any, channels: int) -> None:
    """Raise DataError for a rate or a number of channels out of range."""
    whole = isinstance(rate, int | np.integer) and not isinstance(rate, bool)
    if not whole or not MIN_RATE <= rate <= MAX_RATE:
        raise DataError(f"{name}: rate {rate!r}; expected samples a second, {MIN_RATE:,} to {MAX_RATE:,}")
    if not 1 <= channels <= MAX_CHANNELS:
        raise DataError(f"{name}: {channels} channels; expected 1 to {MAX_CHANNELS}")


def _from_array(name: str, source: tuple[Any, int]) -> Decoded:
    if len(source) != 2:
        raise DataError(f"{name}: a tuple of {len(source)}; expected (samples, rate)")
    samples, rate = np.asarray(source[0]), source[1]
    if samples.ndim not in (1, 2) or not (samples.dtype == np.int16 or np.issubdtype(samples.dtype, np.floating)):
        raise DataError(
            f"{name} is {samples.dtype} of shape {samples.shape}; expected floats in -1..1 or int16, of shape (N,) or "
            "(N, channels)"
        )
    block = samples.reshape(len(samples), -1)
    check_format(name, rate, block.shape[1])
    as_float = block.astype(np.float32) / (np.float32(PCM_SCALE) if samples.dtype == np.int16 else np.float32(1))
    size = BLOCK_SECONDS * int(rate)
    blocks = (as_float[i : i + size] for i in range(0, len(as_float), size))
    return Decoded(name, str(samples.dtype), int(rate), block.shape[1], blocks)


def _from_raw(name: str, file: Any, raw: RawFormat) -> Decoded:
    try:
        check_format(name, raw.rate, raw.channels)
    except DataError as error:
        raise ConfigError(str(error)) from error
    width = 2 * raw.channels

    def blocks() -> Iterator[Samples]:
        rest = b""
        while data := file.read(BLOCK_SECONDS * raw.rate * width):
            data = rest + data
            whole = len(data) // width * width
            rest = data[whole:]
            samples = np.frombuffer(data[:whole], "<i2").reshape(-1, raw.channels)
            yield samples.astype(np.float32) / np.float32(PCM_SCALE)

    return Decoded(name, "raw PCM_16", raw.rate, raw.channels, blocks())


@final
class _Lenient:
    """A binary file for libsndfile, which seeks to impossible places in damaged files: it stays where it is then.

    An error in a callback of libsndfile would be printed.
    """

    def __init__(self, file: Any) -> None:
        self._file = file

    def seek(self, offset: int, whence: int = 0) -> int:
        with suppress(OSError, ValueError, OverflowError):
            self._file.seek(offset, whence)
        return self.tell()

    def tell(self) -> int:
        return int(self._file.tell())

    def read(self, count: int = -1) -> bytes:
        try:
            return bytes(self._file.read(count))
        except (OSError, ValueError, OverflowError, MemoryError):
            return b""


def _by_soundfile(name: str, file: Any, stack: ExitStack) -> Decoded:
    """Decoder for files that libsndfile reads; PyAV decodes the others."""
    try:
        import soundfile
    except (ImportError, OSError) as error:
        raise DataError("sound needs the packages soundfile and soxr: pip install 'regard[audio]'") from error
    try:
        sound = stack.enter_context(soundfile.SoundFile(_Lenient(file)))
    except DAMAGED as error:
        file.seek(0)
        return _by_av(name, file, stack, None, _reason(error))
    check_format(name, sound.samplerate, sound.channels)

    def blocks() -> Iterator[Samples]:
        read = 0
        try:
            while len(block := sound.read(BLOCK_SECONDS * sound.samplerate, "float32", always_2d=True)):
                read += len(block)
                yield block
        except DAMAGED as error:
            raise DataError(_damaged(name, read / sound.samplerate, error)) from error

    return Decoded(name, f"{sound.format} {sound.subtype}", sound.samplerate, sound.channels, blocks())


def _by_av(name: str, file: Any, stack: ExitStack, format: str | None, refused: str = "") -> Decoded:
    """What FFmpeg reads, by PyAV.

    Args:
        name: of the source.
        file: binary, at its beginning.
        stack: that closes the container.
        format: of the container, if it has no header.
        refused: what libsndfile said of the file.
    """
    try:
        import av
    except ImportError as error:
        if format is None:
            raise DataError(
                f"{name} is no sound that libsndfile reads; expected wav, flac, ogg, opus, mp3 or aiff; m4a, mp4, webm "
                "and others need the package av: pip install 'regard[av]'"
            ) from error
        raise DataError(f"{name}: {format} needs the package av: pip install 'regard[av]'") from error
    damaged = (*DAMAGED, av.error.FFmpegError)
    try:
        options = {"format_whitelist": DEMUXERS}
        container = stack.enter_context(av.open(file, format=format, options=options, metadata_errors="ignore"))
        if not container.streams.audio:
            raise DataError(f"{name} has no sound in it; expected a file with an audio stream")
        stream = container.streams.audio[0]
        rate, channels = stream.rate, stream.channels
    except damaged as error:
        if isinstance(error, DataError):
            raise
        raise DataError(
            f"{name} is no sound file, or damaged ({refused or _reason(error)}); expected wav, flac, ogg, opus, mp3, "
            "aiff, m4a, mp4, webm or g722"
        ) from error
    check_format(name, rate, channels)

    def blocks() -> Iterator[Samples]:
        resampler = av.AudioResampler(format="fltp", layout=stream.layout, rate=rate)
        parts: list[Samples] = []
        size = read = 0
        try:
            for frame in container.decode(stream):
                for converted in resampler.resample(frame):
                    parts.append(converted.to_ndarray().T)
                    size += len(parts[-1])
                if size >= BLOCK_SECONDS * rate:
                    yield np.concatenate(parts)
                    parts, size, read = [], 0, read + size
        except damaged as error:
            raise DataError(_damaged(name, (read + size) / rate, error)) from error
        if parts:
            yield np.concatenate(parts)

    return Decoded(name, f"{container.format.name} {stream.codec_context.name}", rate, channels, blocks())


def _damaged(name: str, seconds: float, error: BaseException) -> str:
    return f"{name} is damaged or truncated after {seconds:.1f} s: {_reason(error)}; replace the file or leave it out"


def _reason(error: BaseException) -> str:
    text = getattr(error, "error_string", None) or getattr(error, "strerror", None) or str(error)
    return " ".join(str(text).split())[:200] or type(error).__name__
