"""The processor against the transformers package's, and augmentation."""

import json
from typing import Any

import numpy as np
import pytest
import torch

from regard.errors import ConfigError
from regard.vision.augment import augment
from regard.vision.processor import PictureProcessor, center_crop

CASES: list[tuple[str, dict[str, Any]]] = [
    ("ViT", {}),
    ("ViT", {"size": {"height": 37, "width": 53}, "resample": 3}),
    ("ViT", {"do_normalize": False, "do_resize": False}),
    ("ViT", {"do_rescale": False, "size": {"height": 20, "width": 20}}),
    ("DeiT", {}),
    ("DeiT", {"crop_size": {"height": 31, "width": 30}, "size": {"height": 41, "width": 39}}),
    ("Bit", {}),
    ("Bit", {"size": {"shortest_edge": 33}, "crop_size": {"height": 47, "width": 28}}),
    ("Bit", {"do_center_crop": False, "image_mean": [0.1, 0.2, 0.3], "image_std": [0.5, 0.6, 0.7]}),
]


def noise(height: int, width: int) -> Any:
    return np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8)


@pytest.mark.parametrize("shape", [(61, 97), (97, 61), (19, 23)])
@pytest.mark.parametrize(("kind", "changes"), CASES)
def test_published_processors(kind: str, changes: dict[str, Any], shape: tuple[int, int]) -> None:
    pytest.importorskip("transformers")
    from PIL import Image
    from transformers.models.bit.image_processing_pil_bit import BitImageProcessorPil
    from transformers.models.deit.image_processing_pil_deit import DeiTImageProcessorPil
    from transformers.models.vit.image_processing_pil_vit import ViTImageProcessorPil

    classes = {"ViT": ViTImageProcessorPil, "DeiT": DeiTImageProcessorPil, "Bit": BitImageProcessorPil}
    theirs = classes[kind](**changes)
    pixels = noise(*shape)
    expected = theirs(Image.fromarray(pixels), return_tensors="pt")["pixel_values"][0].float()
    ours = PictureProcessor.from_published(json.loads(theirs.to_json_string()))
    scale = max(1.0, float(expected.abs().max()))
    torch.testing.assert_close(ours(pixels), expected, rtol=0, atol=2e-6 * scale)
    for again in (
        PictureProcessor.from_plain(json.loads(json.dumps(ours.to_plain()))),
        PictureProcessor.from_published(json.loads(ours.to_json())),
    ):
        torch.testing.assert_close(again(pixels), ours(pixels), rtol=0, atol=0)


def test_sizes_of_old_files() -> None:
    old = PictureProcessor.from_published({"feature_extractor_type": "ViTFeatureExtractor", "size": 32})
    assert old.size == (32, 32)
    bit = PictureProcessor.from_published({"image_processor_type": "BitImageProcessor", "size": 32, "crop_size": 16})
    assert (bit.size, bit.shortest_edge, bit.crop) == (None, 32, (16, 16))


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"image_processor_type": "SamImageProcessor"}, "Sam"),
        ({"size": {"longest_edge": 3}}, "longest_edge"),
        ({"size": {"height": 0, "width": 3}}, r"\(0, 3\)"),
        ({"size": {"height": 10**9, "width": 3}}, "1000000000"),
        ({"resample": 99}, "99"),
        ({"image_std": [0.5, 0.0, 0.5]}, "zero"),
        ({"image_mean": ["a", 1, 1]}, "mean"),
    ],
)
def test_published_fields_that_are_refused(fields: dict[str, Any], expected: str) -> None:
    with pytest.raises(ConfigError, match=expected):
        PictureProcessor.from_published(fields)


def test_plain_fields_that_are_refused() -> None:
    with pytest.raises(ConfigError, match="croop"):
        PictureProcessor.from_plain({"croop": 3})
    with pytest.raises(ConfigError, match="exclude"):
        PictureProcessor(shortest_edge=3)


def test_center_crop_of_a_smaller_picture() -> None:
    pixels = np.full((2, 5, 3), 7, np.uint8)
    found = center_crop(pixels, 5, 3)[..., 0]
    np.testing.assert_array_equal(found, [[0] * 3, [0] * 3, [7] * 3, [7] * 3, [0] * 3])


def test_augmentation_crops_and_flips() -> None:
    pictures = torch.arange(1, 1 + 2 * 5 * 7, dtype=torch.uint8).view(1, 2, 5, 7).expand(64, -1, -1, -1)
    draw = torch.Generator().manual_seed(3)
    out = augment(pictures, padding=2, flip=True, generator=draw)
    assert (out.dtype, out.shape) == (pictures.dtype, pictures.shape)
    padded = torch.nn.functional.pad(pictures[0], (2, 2, 2, 2))
    crops = {
        (bytes(crop.flatten().tolist())): (top, left, mirrored)
        for top in range(5)
        for left in range(5)
        for mirrored in (False, True)
        for crop in [
            padded[:, top : top + 5, left : left + 7].flip(2) if mirrored else padded[:, top : top + 5, left : left + 7]
        ]
    }
    drawn = {crops[bytes(one.flatten().tolist())] for one in out}
    assert len(drawn) > 20
    assert {mirrored for *_, mirrored in drawn} == {False, True}
    same = augment(pictures, padding=2, flip=True, generator=torch.Generator().manual_seed(3))
    assert torch.equal(out, same)
    plain = augment(pictures, padding=0, flip=False, generator=draw)
    assert torch.equal(plain, pictures)
