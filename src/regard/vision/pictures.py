"""Decoding of picture files."""

import logging
import struct
import warnings
from pathlib import Path
from typing import Any

import numpy as np

from regard.errors import DataError

FORMATS = ("JPEG", "PNG", "GIF", "BMP", "WEBP", "TIFF", "PPM", "JPEG2000", "AVIF", "ICO")
SUFFIXES = {
    ".jpg", ".jpeg", ".png", ".gif", ".bmp", ".webp", ".tif", ".tiff", ".ppm", ".pgm", ".pbm", ".pnm", ".jp2", ".avif",
    ".ico",
}  # fmt: skip
MAX_PIXELS = 89_478_485  # Pillow's own limit against decompression bombs: 256 MiB as RGB
DEEP = 257  # 65,535 / 255: from 16 bits to 8
ORIENTATION = 0x0112  # tag of EXIF
# Errors of Pillow's decoders on damaged files.
DAMAGED = (
    OSError, SyntaxError, ValueError, TypeError, ArithmeticError, LookupError, AttributeError, EOFError, MemoryError,
    RuntimeError, struct.error,
)  # fmt: skip
Pixels = np.ndarray[Any, np.dtype[np.uint8]]


def is_picture_name(path: Path) -> bool:
    """Whether a file's name ends as that of a picture."""
    return path.suffix.lower() in SUFFIXES


def read_picture(path: str | Path) -> Pixels:
    """The pixels of a picture file.

    The picture is turned as its EXIF orientation says; transparency is composited over white; of an animation, the
    first frame is read; 16 bits a channel become 8.

    Args:
        path: of the file: JPEG, PNG, GIF, BMP, WebP, TIFF, PPM, JPEG 2000, AVIF or ICO.

    Returns:
        (H, W, 3) uint8, RGB.

    Raises:
        DataError: a file that is missing, damaged, truncated, no picture, or larger than `MAX_PIXELS`; or Pillow is
            not installed.
    """
    image_module = pillow()
    path = Path(path)
    if not path.is_file():
        state = "is a folder" if path.is_dir() else "does not exist"
        raise DataError(f"{path} {state}; expected a picture file")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Pillow warns of broken metadata, which is not used
            image_module.init()
            formats = [name for name in FORMATS if name in image_module.OPEN]  # of those that Pillow is built with
            with image_module.open(path, formats=formats) as image:
                width, height = image.size
                if width * height > MAX_PIXELS:
                    raise DataError(_too_large(path, f"{width} x {height} pixels"))
                image.load()
                return _to_pixels(image_module, path, image)
    except DataError:
        raise
    except image_module.DecompressionBombError as error:
        raise DataError(_too_large(path, str(error))) from error
    except image_module.UnidentifiedImageError as error:
        raise DataError(f"{path} is no picture that Pillow can read; expected one of {', '.join(FORMATS)}") from error
    except DAMAGED as error:
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise DataError(f"{path} is damaged or truncated: {reason}; replace the file or leave it out") from error


def pillow() -> Any:
    """The module `PIL.Image`; DataError if Pillow is not installed."""
    try:
        import PIL.Image
    except ImportError as error:
        raise DataError("pictures need the package Pillow: pip install 'regard[vision]'") from error
    logger = logging.getLogger("PIL")
    if not logger.handlers:  # else Python prints what Pillow logs of damaged files, beside the error that is raised
        logger.addHandler(logging.NullHandler())
    return PIL.Image


def _too_large(path: Path, size: str) -> str:
    return f"{path} is too large: {size}; expected at most {MAX_PIXELS:,} pixels: resize it before"


def _to_pixels(image_module: Any, path: Path, image: Any) -> Pixels:
    if image.mode.startswith("I"):
        image = _eight_bits(image_module, path, image)
    elif image.mode == "F":
        raise DataError(f"{path} has floating-point pixels; expected integers of 8 or 16 bits: convert it")
    if image.has_transparency_data:
        image = image.convert("RGBA")
        white = image_module.new("RGBA", image.size, "white")
        image = image_module.alpha_composite(white, image)
    pixels: Pixels = np.array(_turned(image_module, image.convert("RGB"), image.getexif()))
    return pixels


def _eight_bits(image_module: Any, path: Path, image: Any) -> Any:
    """A gray picture of 16 bits with 8."""
    deep = np.asarray(image).astype(np.int64)
    if deep.size and not 0 <= deep.min() <= deep.max() <= 65535:
        raise DataError(
            f"{path} has pixels from {deep.min()} to {deep.max()}; expected 16 bits, 0 to 65535: convert it"
        )
    return image_module.fromarray(((deep + DEEP // 2) // DEEP).astype(np.uint8))


def _turned(image_module: Any, image: Any, exif: Any) -> Any:
    """Picture rotated by its EXIF orientation."""
    turn = image_module.Transpose
    methods = {
        2: turn.FLIP_LEFT_RIGHT,
        3: turn.ROTATE_180,
        4: turn.FLIP_TOP_BOTTOM,
        5: turn.TRANSPOSE,
        6: turn.ROTATE_270,
        7: turn.TRANSVERSE,
        8: turn.ROTATE_90,
    }
    method = methods.get(exif.get(ORIENTATION))
    return image if method is None else image.transpose(method)
