"""Made pictures of colored shapes, and the folder of a tiny published model."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.torch
import torch
from PIL import Image

from regard.models.vit import ViT, ViTConfig
from regard.models.vit_names import to_vit
from regard.vision.processor import PictureProcessor

COLORS = {"red": (220, 40, 40), "green": (40, 200, 60), "blue": (50, 60, 220)}
TINY: dict[str, Any] = {
    "image_size": 16, "patch_size": 4, "embed_dim": 32, "num_layers": 2, "num_heads": 2, "ffn_dim": 64,
}  # fmt: skip


def shape(color: str, seed: int) -> Image.Image:
    """A square of a color, somewhere on noise; sides of pictures differ."""
    random = np.random.default_rng(seed)
    height, width = random.integers(18, 30, 2)
    pixels = random.integers(90, 160, (height, width, 3)).astype(np.uint8)
    top, left = random.integers(0, height - 9), random.integers(0, width - 9)
    pixels[top : top + 9, left : left + 9] = COLORS[color]
    return Image.fromarray(pixels)


def photos(folder: Path, count: int, seed: int = 0) -> Path:
    """A folder a class, with so many pictures in each."""
    for number, color in enumerate(COLORS):
        (folder / color).mkdir(parents=True)
        for i in range(count):
            shape(color, seed + 1000 * number + i).save(folder / color / f"{i}.png")
    return folder


def published(folder: Path, labels: list[str] | None = None, **changes: Any) -> Path:
    """The folder of a random model in the hub's layout."""
    torch.manual_seed(0)
    model = ViT(ViTConfig(**{**TINY, "num_labels": None if labels is None else len(labels), **changes})).eval()
    fields, state = to_vit(model)
    if labels is not None:
        fields["id2label"] = {str(i): label for i, label in enumerate(labels)}
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps(fields))
    (folder / "preprocessor_config.json").write_bytes(PictureProcessor(size=(16, 16)).to_json())
    safetensors.torch.save_file({name: x.contiguous() for name, x in state.items()}, folder / "model.safetensors")
    return folder
