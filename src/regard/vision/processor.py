"""From the pixels of a picture to a model's input: resize, crop, rescale, normalize."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Final, final

import numpy as np
import torch
from torch import Tensor

from regard.errors import ConfigError
from regard.vision.pictures import Pixels, pillow

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
HALF = (0.5, 0.5, 0.5)
CLIP_MEAN, CLIP_STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
BILINEAR, BICUBIC = 2, 3  # Pillow's numbers
RESAMPLING = range(6)
MAX_SIDE = 8192
# Defaults of the transformers package's image processors, by class; "Bit" is what DINOv2 uses.
DEFAULTS: Final[dict[str, dict[str, Any]]] = {
    "ViT": {
        "size": {"height": 224, "width": 224}, "resample": BILINEAR, "do_center_crop": False,
        "crop_size": {"height": 224, "width": 224}, "image_mean": HALF, "image_std": HALF,
    },
    "DeiT": {
        "size": {"height": 256, "width": 256}, "resample": BICUBIC, "do_center_crop": True,
        "crop_size": {"height": 224, "width": 224}, "image_mean": HALF, "image_std": HALF,
    },
    "Bit": {
        "size": {"shortest_edge": 224}, "resample": BICUBIC, "do_center_crop": True,
        "crop_size": {"height": 224, "width": 224}, "image_mean": CLIP_MEAN, "image_std": CLIP_STD,
    },
}  # fmt: skip


@final
@dataclass(frozen=True, kw_only=True)
class PictureProcessor:
    """How pictures become model inputs.

    Args:
        size: (H, W) that pictures are resized to; None for another rule.
        shortest_edge: length that the shorter side is resized to, the ratio of the sides kept; None for another rule.
        crop: (H, W) cut from the center, padded with black if the picture is smaller; None for no crop.
        resample: Pillow's number of the filter: 2 bilinear, 3 bicubic.
        rescale: what 8-bit values are multiplied by.
        mean: subtracted of each channel, after rescaling; None to leave values as they are.
        std: that each channel is divided by then.

    Raises:
        ConfigError: a value out of range, or both rules of resizing.
    """

    size: tuple[int, int] | None = (224, 224)
    shortest_edge: int | None = None
    crop: tuple[int, int] | None = None
    resample: int = BILINEAR
    rescale: float = 1 / 255
    mean: tuple[float, ...] | None = HALF
    std: tuple[float, ...] = HALF

    def __post_init__(self) -> None:
        for name in ("size", "crop"):
            _check_sides(name, getattr(self, name))
        _check_sides("shortest_edge", None if self.shortest_edge is None else (self.shortest_edge,) * 2)
        if self.size is not None and self.shortest_edge is not None:
            raise ConfigError(f"size={self.size} and shortest_edge={self.shortest_edge} exclude each other; give one")
        if self.resample not in RESAMPLING:
            raise ConfigError(f"resample={self.resample!r}; expected one of Pillow's filters, 0 to 5")
        for name, x in (("mean", self.mean), ("std", self.std)):
            numbers = isinstance(x, tuple) and len(x) == 3 and all(isinstance(y, int | float) for y in x)
            if not numbers and not (name == "mean" and x is None):
                raise ConfigError(f"{name}={x!r}; expected a number for each of 3 channels")
        if not all(self.std):
            raise ConfigError(f"std={self.std} has a zero, which nothing can be divided by")

    def resized(self, pixels: Pixels) -> Pixels:
        """A picture of the size that the model reads, in 8 bits.

        Args:
            pixels: (H, W, 3) uint8.

        Returns:
            (H', W', 3) uint8.
        """
        height, width = pixels.shape[:2]
        new = self.size
        if self.shortest_edge is not None:
            short, long = min(height, width), max(height, width)
            new_long = int(self.shortest_edge * long / short)
            new = (self.shortest_edge, new_long) if height <= width else (new_long, self.shortest_edge)
        if new is not None and new != (height, width):
            image = pillow().fromarray(pixels)
            pixels = np.array(image.resize((new[1], new[0]), resample=self.resample))
        return pixels if self.crop is None else center_crop(pixels, *self.crop)

    def normalized(self, pixels: Tensor) -> Tensor:
        """Numbers as the model reads them.

        Args:
            pixels: (..., 3, H, W), 8-bit values.

        Returns:
            float32 of the same shape.
        """
        x = pixels.float() * self.rescale
        if self.mean is None:
            return x
        mean, std = (x.new_tensor(values)[:, None, None] for values in (self.mean, self.std))
        return (x - mean) / std

    def __call__(self, pixels: Pixels) -> Tensor:
        """The model's input of one picture.

        Args:
            pixels: (H, W, 3) uint8, as `read_picture` gives them.

        Returns:
            (3, H', W') float32.
        """
        return self.normalized(to_tensor(self.resized(pixels)))

    def to_plain(self) -> dict[str, Any]:
        """The fields as JSON's types."""
        return {name: list(x) if isinstance(x, tuple) else x for name, x in asdict(self).items()}

    @staticmethod
    def from_plain(plain: Mapping[str, Any]) -> "PictureProcessor":
        """The processor that `to_plain` described; ConfigError for unknown fields."""
        unknown = sorted(set(plain) - set(PictureProcessor.__dataclass_fields__))
        if unknown:
            raise ConfigError(f"pictures: unknown settings {', '.join(unknown)}; expected those of PictureProcessor")
        return PictureProcessor(**{name: tuple(x) if isinstance(x, list) else x for name, x in plain.items()})

    def to_published(self) -> dict[str, Any]:
        """The fields of a preprocessor_config.json."""
        size = {"shortest_edge": self.shortest_edge} if self.size is None else _sides(self.size)
        resized = not (self.size is None and self.shortest_edge is None)
        return {
            "image_processor_type": "ViTImageProcessor" if self.crop is None else "BitImageProcessor",
            "do_resize": resized,
            **({"size": size} if resized else {}),
            "resample": self.resample,
            "do_center_crop": self.crop is not None,
            **({} if self.crop is None else {"crop_size": _sides(self.crop)}),
            "do_rescale": self.rescale != 1,
            "rescale_factor": self.rescale,
            "do_normalize": self.mean is not None,
            **({} if self.mean is None else {"image_mean": list(self.mean), "image_std": list(self.std)}),
            "do_convert_rgb": True,
        }

    @staticmethod
    def from_published(fields: Mapping[str, Any]) -> "PictureProcessor":
        """The processor that a preprocessor_config.json describes.

        Args:
            fields: of the file.

        Returns:
            The processor.

        Raises:
            ConfigError: a class or value that is not known.
        """
        kind = fields.get("image_processor_type") or fields.get("feature_extractor_type") or "ViTImageProcessor"
        for end in ("ImageProcessorFast", "ImageProcessorPil", "ImageProcessor", "FeatureExtractor"):
            kind = str(kind).removesuffix(end)
        if kind not in DEFAULTS:
            known = ", ".join(f"{name}ImageProcessor" for name in DEFAULTS)
            raise ConfigError(f"image_processor_type {kind!r} is not known; expected one of {known}")
        settings = {**DEFAULTS[kind], **{name: x for name, x in fields.items() if x is not None}}
        size, edge = _published_size("size", settings["size"], by_edge=kind == "Bit")
        crop, crop_edge = _published_size("crop_size", settings["crop_size"], by_edge=False)
        crop = crop if crop_edge is None else (crop_edge, crop_edge)
        if not settings.get("do_resize", True):
            size = edge = None
        rescaled, normalized = settings.get("do_rescale", True), settings.get("do_normalize", True)
        return PictureProcessor(
            size=size,
            shortest_edge=edge,
            crop=crop if settings["do_center_crop"] else None,
            resample=settings["resample"],
            rescale=settings.get("rescale_factor", 1 / 255) if rescaled else 1.0,
            mean=_channels(settings["image_mean"]) if normalized else None,
            std=_channels(settings["image_std"]),
        )

    def to_json(self) -> bytes:
        """The content of a preprocessor_config.json."""
        return (json.dumps(self.to_published(), indent=2) + "\n").encode()


def to_tensor(pixels: Pixels) -> Tensor:
    """(H, W, 3) as (3, H, W), of the same type."""
    return torch.from_numpy(np.ascontiguousarray(pixels.transpose(2, 0, 1)))


def center_crop(pixels: Pixels, height: int, width: int) -> Pixels:
    """The middle of a picture, with black around it where the picture is smaller.

    Args:
        pixels: (H, W, 3).
        height, width: of the crop, in pixels.

    Returns:
        (height, width, 3).
    """
    of_height, of_width = pixels.shape[:2]
    below, right = max(height - of_height, 0), max(width - of_width, 0)
    top, left = (of_height - height) // 2, (of_width - width) // 2
    if below or right:
        around = [((below + 1) // 2, below // 2), ((right + 1) // 2, right // 2), (0, 0)]
        pixels = np.pad(pixels, around)
        top, left = max(top, 0), max(left, 0)
    return pixels[top : top + height, left : left + width]


def _check_sides(name: str, sides: Any) -> None:
    if sides is None:
        return
    whole = isinstance(sides, tuple) and len(sides) == 2 and all(type(x) is int for x in sides)
    if not whole or not all(1 <= x <= MAX_SIDE for x in sides):
        raise ConfigError(f"{name}={sides!r}; expected sides in pixels, 1 to {MAX_SIDE}")


def _sides(size: tuple[int, int]) -> dict[str, int]:
    return {"height": size[0], "width": size[1]}


def _published_size(name: str, x: Any, *, by_edge: bool) -> tuple[tuple[int, int] | None, int | None]:
    """Sides, or shortest edge, from a published field."""
    if isinstance(x, Mapping) and {"height", "width"} <= set(x):
        return (x["height"], x["width"]), None
    if isinstance(x, Mapping) and set(x) == {"shortest_edge"}:
        return None, x["shortest_edge"]
    if isinstance(x, list | tuple) and len(x) == 2:
        return (x[0], x[1]), None
    if type(x) is int:
        return (None, x) if by_edge else ((x, x), None)
    raise ConfigError(f'{name}={x!r}; expected a number, {{"height", "width"}} or {{"shortest_edge"}}')


def _channels(x: Any) -> tuple[float, ...]:
    return tuple(x) if isinstance(x, list | tuple) else (x, x, x)
