"""Decoding: every kind of picture file, and files that are none."""

import io
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from regard.errors import DataError
from regard.vision.pictures import read_picture

RED, WHITE = (255, 0, 0), (255, 255, 255)


def two_colors() -> Image.Image:
    """3 rows of 5 pixels: the first row red, the others blue."""
    image = Image.new("RGB", (5, 3), (0, 0, 255))
    image.paste(RED, (0, 0, 5, 1))
    return image


def saved(folder: Path, image: Image.Image, name: str = "a.png", **how: Any) -> Path:
    image.save(folder / name, **how)
    return folder / name


@pytest.mark.parametrize("mode", ["RGB", "P", "RGBA", "CMYK"])
def test_modes_become_rgb(tmp_path: Path, mode: str) -> None:
    image = two_colors().convert(mode)
    found = read_picture(saved(tmp_path, image, "a.tif" if mode == "CMYK" else "a.png"))
    assert found.dtype == np.uint8
    np.testing.assert_array_equal(found, np.asarray(two_colors()))


@pytest.mark.parametrize("mode", ["L", "LA", "1"])
def test_gray(tmp_path: Path, mode: str) -> None:
    image = Image.fromarray(np.array([[0, 255, 255], [255, 0, 0]], np.uint8)).convert(mode)
    expected = np.array([[0, 255, 255], [255, 0, 0]], np.uint8)[..., None].repeat(3, 2)
    np.testing.assert_array_equal(read_picture(saved(tmp_path, image)), expected)


def test_sixteen_bits(tmp_path: Path) -> None:
    deep = np.array([[0, 257, 257 * 128], [65535, 400, 128]], np.uint16)
    found = read_picture(saved(tmp_path, Image.fromarray(deep)))
    np.testing.assert_array_equal(found[..., 0], [[0, 1, 128], [255, 2, 0]])


def test_alpha_is_over_white(tmp_path: Path) -> None:
    image = Image.new("RGBA", (3, 2), (255, 0, 0, 0))
    image.putpixel((1, 0), (0, 0, 0, 255))
    image.putpixel((2, 0), (0, 0, 0, 51))
    found = read_picture(saved(tmp_path, image))
    assert [tuple(found[0, x].tolist()) for x in range(3)] == [WHITE, (0, 0, 0), (204, 204, 204)]


def test_transparent_palette_is_over_white(tmp_path: Path) -> None:
    image = two_colors().convert("P", palette=Image.Palette.ADAPTIVE, colors=2)
    transparent = image.getpixel((0, 0))
    found = read_picture(saved(tmp_path, image, "a.gif", transparency=transparent))
    assert tuple(found[0, 0].tolist()) == WHITE
    assert tuple(found[2, 0].tolist()) == (0, 0, 255)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation(tmp_path: Path, orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    found = read_picture(saved(tmp_path, two_colors(), exif=exif))
    row, column = {1: (0, 2), 2: (0, 2), 3: (2, 2), 4: (2, 2), 5: (2, 0), 6: (2, 2), 7: (2, 2), 8: (2, 0)}[orientation]
    assert found.shape == ((3, 5, 3) if orientation < 5 else (5, 3, 3))
    assert tuple(found[row, column].tolist()) == RED


def test_animation_gives_its_first_frame(tmp_path: Path) -> None:
    frames = [Image.new("RGB", (4, 3), color) for color in (RED, (0, 255, 0))]
    path = saved(tmp_path, frames[0], "a.gif", save_all=True, append_images=frames[1:])
    assert (read_picture(path) == RED).all()


def large_png(width: int, height: int) -> bytes:
    """A PNG whose head says a size, with hardly any data."""

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    data = chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(bytes(100))) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + data


def whole() -> bytes:
    file = io.BytesIO()
    noise = np.random.default_rng(0).integers(0, 256, (40, 40, 3), np.uint8)
    Image.fromarray(noise).save(file, "PNG")
    return file.getvalue()


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (large_png(60_000, 60_000), "too large"),
        (large_png(10_000, 10_000), "too large: 10000 x 10000"),
        (whole()[:1500], "damaged or truncated"),
        (b"Not a picture.\n" * 10, "no picture"),
        (b"", "no picture"),
    ],
)
def test_what_is_no_picture_is_refused_by_name(tmp_path: Path, content: bytes, expected: str) -> None:
    path = tmp_path / "bad.png"
    path.write_bytes(content)
    with pytest.raises(DataError, match=expected) as caught:
        read_picture(path)
    assert str(caught.value).startswith(str(path))
    assert "\n" not in str(caught.value)


def test_missing_files_folders_and_floats(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="does not exist"):
        read_picture(tmp_path / "none.png")
    with pytest.raises(DataError, match="is a folder"):
        read_picture(tmp_path)
    with pytest.raises(DataError, match="floating-point"):
        read_picture(saved(tmp_path, Image.fromarray(np.ones((2, 2), np.float32)), "f.tif"))


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "GIF", "BMP", "WEBP", "TIFF"])
def test_mutations_give_a_picture_or_one_line(tmp_path: Path, kind: str) -> None:
    rng, path = np.random.default_rng(1), tmp_path / "mutated"
    file = io.BytesIO()
    two_colors().resize((20, 12)).save(file, kind)
    content = np.frombuffer(file.getvalue(), np.uint8)
    refused: list[str] = []
    for _ in range(60):
        mutated = content.copy()
        mutated[rng.integers(0, len(content), 4)] = rng.integers(0, 256, 4)
        path.write_bytes(mutated.tobytes()[: rng.integers(1, len(content) + 1)])
        try:
            assert read_picture(path).shape[2] == 3
        except DataError as error:
            refused.append(str(error))
    assert refused
    assert all(message.startswith(str(path)) and "\n" not in message for message in refused)
