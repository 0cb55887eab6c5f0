"""Damaged sound files: each is sound, or one line that names it; never another error, a crash or a hang."""

import random
from pathlib import Path

import numpy as np
import pytest

from regard.audio.sound import SoundReader
from regard.errors import DataError
from tests.audio.sounds import sine, write

SUFFIXES = ("wav", "flac", "ogg", "mp3", "aiff", "m4a", "webm", "g722")
LONGEST = 600.0  # seconds that a mutation of half a second may claim; the reader goes on in blocks


def mutated(data: bytes, draw: random.Random) -> bytes:
    """A file with some bytes changed, left out, doubled or cut off; those of the header more often."""
    content = bytearray(data)
    for _ in range(draw.choice((1, 1, 2, 5, 20))):
        at = draw.randrange(min(len(content), draw.choice((64, 256, len(content))))) if content else 0
        kind = draw.randrange(5)
        if kind == 0 and content:
            content[at] = draw.randrange(256)
        elif kind == 1 and content:
            content[at] ^= 1 << draw.randrange(8)
        elif kind == 2:
            content[at : at + draw.choice((1, 4, 100))] = b""
        elif kind == 3:
            content[at:at] = bytes(draw.choices((0, 255, 127, 1), k=draw.choice((1, 4, 100))))
        elif len(content) > 1:
            content = content[: draw.randrange(1, len(content))]
    return bytes(content)


def check(folder: Path, suffix: str, count: int) -> None:
    samples = np.stack([sine(0.5), sine(0.5, 700.0)], 1) if suffix in ("wav", "flac") else sine(0.5)
    data = write(folder / f"good.{suffix}", samples).read_bytes()
    path, read, refused = folder / f"bad.{suffix}", 0, 0
    for number in range(count):
        path.write_bytes(mutated(data, random.Random(f"{suffix}{number}")))
        message = told(path)
        read, refused = read + (message is None), refused + (message is not None)
        if message is not None:
            assert str(path) in message, number
            assert "\n" not in message, number
            assert len(message) < 600, number
    assert read or suffix == "ogg"  # whose pages have checksums
    assert refused or suffix == "g722"  # in which all bytes are sound


def told(path: Path) -> str | None:
    """The message about a sound; None if it can be read."""
    try:
        reader = SoundReader(path)
        for block in reader:
            assert np.isfinite(block).all(), path.read_bytes()
            if reader.info.seconds > LONGEST:
                break
    except DataError as error:
        return str(error)
    return None


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_some_damaged_files(tmp_path: Path, suffix: str) -> None:
    check(tmp_path, suffix, 40)


@pytest.mark.slow
@pytest.mark.parametrize("suffix", SUFFIXES)
def test_many_damaged_files(tmp_path: Path, suffix: str) -> None:
    check(tmp_path, suffix, 625)  # 5,000 in all
