"""Misuse of pictures, their models and training: see `cases.py`."""

import contextlib
import io
import json
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest import mock

import click
import numpy as np
import torch
from PIL import Image

import regard as rg
from regard.cli import classify, embed
from regard.cli.pictures import check_reads
from regard.errors import CheckpointError, ConfigError, DataError, ShapeError, UnsupportedError
from regard.models.vit import ViT, ViTConfig
from regard.models.vit_names import from_vit, to_vit
from regard.tasks.classify_pictures import ClassifyPictures
from regard.tasks.labeled_pictures import MAX_LABELS, LabeledPicture, LabeledPictures
from regard.tasks.pictures import PictureEncoder
from regard.train.options import TrainOptions
from regard.vision.pictures import read_picture
from regard.vision.processor import PictureProcessor
from tests.errors.cases import Case
from tests.vision.made import TINY, photos, published
from tests.vision.test_pictures import large_png, whole

PIXELS = np.zeros((20, 20, 3), np.uint8)


def content(data: bytes) -> Callable[[], object]:
    """Read a file that holds this."""

    def call() -> object:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder, "a.png")
            path.write_bytes(data)
            return read_picture(path)

    return call


def values(pixels: Any) -> Callable[[], object]:
    """Read a TIFF of these pixels."""
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "TIFF")
    return content(file.getvalue())


def without_pillow() -> object:
    with mock.patch.dict(sys.modules, {"PIL": None, "PIL.Image": None}):
        return read_picture("a.png")


def model(**changes: Any) -> ViT:
    return ViT(ViTConfig(**{**TINY, **changes})).eval()


def published_fields(**changes: Any) -> Callable[[], object]:
    """Read a published model whose config.json says this."""
    fields, state = to_vit(model(pooler=True))
    return lambda: from_vit({**fields, **changes}, state)


def encoder(**changes: Any) -> PictureEncoder:
    config = {"labels": ["a", "b", "c"]} if changes.get("num_labels") else {}
    return PictureEncoder(model(**changes), None, config, PictureProcessor(size=(16, 16)))


def verb(run: Callable[..., object], **changes: Any) -> Callable[[], object]:
    """A verb on a picture that cannot be read."""

    def call() -> object:
        with tempfile.TemporaryDirectory() as name, contextlib.redirect_stdout(io.StringIO()):
            folder = published(Path(name, "model"), ["a", "b"])
            path = Path(name, "a.png")
            path.write_bytes(b"text")
            with contextlib.redirect_stderr(io.StringIO()):
                return run((str(path),), None, str(folder), None, "cpu", None, **changes)

    return call


def training(**changes: Any) -> Callable[[], object]:
    """Prepare training on made photographs."""

    def call() -> object:
        with tempfile.TemporaryDirectory() as name:
            folder = photos(Path(name, "photos"), 1)
            settings = {"files": (str(folder),), "task": "classify", "model": "vit", "model_settings": TINY}
            return ClassifyPictures(TrainOptions(**{**settings, **changes}))

    return call


def unreadable() -> object:
    processor = PictureProcessor(size=(16, 16))
    preparation = LabeledPictures(processor, (16, 16), skip=False)
    preparation.labels = ["a"]
    return preparation.encode([LabeledPicture("none.png", "a", "photos.tsv:2")])


def surveyed(*labels: str) -> object:
    preparation = LabeledPictures(PictureProcessor(size=(16, 16)), (16, 16), skip=False)
    for label in labels:
        preparation.survey(LabeledPicture("a.png", label, "photos.tsv:2"))
    with tempfile.TemporaryDirectory() as folder:
        preparation.finish_survey(Path(folder), lambda what, rows: None)
    return preparation


def mixed_files() -> object:
    with tempfile.TemporaryDirectory() as folder:
        return ClassifyPictures.read([folder, "photos.tsv"])


def empty_folder() -> object:
    with tempfile.TemporaryDirectory() as folder:
        return ClassifyPictures.read([folder])


def bad_processor() -> object:
    with tempfile.TemporaryDirectory() as name:
        folder = published(Path(name, "model"))
        (folder / "preprocessor_config.json").write_text(json.dumps({"image_processor_type": "SamImageProcessor"}))
        return rg.load(folder)


def published_processor(**fields: Any) -> Callable[[], object]:
    return lambda: PictureProcessor.from_published(fields)


EMBED = {"pooling": None, "prompt": None, "prompt_name": None, "raw": False, "npy": None, "batch_size": 2}
LABELED = LabeledPicture("a.png", "pear", "photos.tsv:2")

CASES: list[Case] = [
    ("picture that is missing", lambda: read_picture("none.png"), DataError, "none.png does not exist"),
    ("picture that is text", content(b"text"), DataError, "no picture"),
    ("picture that is cut", content(whole()[:1500]), DataError, "damaged or truncated"),
    ("picture that is a bomb", content(large_png(60_000, 60_000)), DataError, "too large"),
    ("picture that is large", content(large_png(10_000, 10_000)), DataError, "10000 x 10000"),
    ("picture of floats", values(np.ones((2, 2), np.float32)), DataError, "floating-point"),
    ("picture of 32 bits", values(np.full((2, 2), 70_000, np.int32)), DataError, "70000"),
    ("pictures without Pillow", without_pillow, DataError, "regard[vision]"),
    ("side of 0", lambda: PictureProcessor(size=(0, 3)), ConfigError, "(0, 3)"),
    ("both rules of resizing", lambda: PictureProcessor(shortest_edge=3), ConfigError, "shortest_edge=3"),
    ("unknown filter", lambda: PictureProcessor(resample=9), ConfigError, "resample=9"),
    ("mean of one channel", lambda: PictureProcessor(mean=(0.5,)), ConfigError, "(0.5,)"),
    ("deviation of 0", lambda: PictureProcessor(std=(0.0, 1.0, 1.0)), ConfigError, "zero"),
    ("unknown setting", lambda: PictureProcessor.from_plain({"croop": 3}), ConfigError, "croop"),
    ("unknown processor", published_processor(image_processor_type="Sam"), ConfigError, "'Sam'"),
    ("unknown rule of resizing", published_processor(size={"longest_edge": 3}), ConfigError, "longest_edge"),
    ("unknown processor in a folder", bad_processor, CheckpointError, "Sam"),
    ("ViT: unknown activation", lambda: ViTConfig(activation="gelo"), ConfigError, "gelo"),
    ("ViT: picture smaller than a patch", lambda: ViTConfig(image_size=8), ConfigError, "patch_size=16"),
    ("ViT: head without its token", lambda: ViTConfig(head="both"), ConfigError, "distilled=True"),
    ("ViT: unknown size", lambda: ViTConfig.from_preset("enormous"), ConfigError, "enormous"),
    ("ViT: small pictures", lambda: model()(torch.zeros(1, 3, 3, 9)), ShapeError, "(1, 3, 3, 9)"),
    ("ViT: size of the pooler", published_fields(pooler_output_size=7), UnsupportedError, "pooler_output_size=7"),
    ("ViT: side that is none", published_fields(image_size="big"), CheckpointError, "big"),
    ("ViT: sides that differ", published_fields(image_size=[16, 20]), UnsupportedError, "equal sides"),
    ("ViT: layer scale", lambda: to_vit(model(layer_scale=0.5)), UnsupportedError, "layer_scale=0.5"),
    ("DINOv2: no layer scale", lambda: to_vit(model(family="dinov2")), UnsupportedError, "layer_scale=None"),
    (
        "DINOv2: feed-forward size",
        lambda: to_vit(model(family="dinov2", layer_scale=1.0, ffn_dim=33)),
        UnsupportedError,
        "ffn_dim=33",
    ),
    ("labels of another number", lambda: PictureEncoder(model(num_labels=3), None, {"labels": ["a"]}), CheckpointError,
     "3 labels"),
    ("no processor", lambda: PictureEncoder(model()).embed([PIXELS]), CheckpointError, "preprocessor_config.json"),
    ("pixels of another shape", lambda: encoder().embed([PIXELS[0]]), DataError, "(20, 3)"),
    ("no classifier", lambda: encoder().classify([PIXELS]), UnsupportedError, "no classifier"),
    ("unknown pooling of pictures", lambda: encoder().embed([PIXELS], pooling="max"), ConfigError, "'max'"),
    ("one picture alone", lambda: encoder().embed("a.png"), DataError, "a list of its own"),
    ("no pictures to evaluate", lambda: encoder(num_labels=3).evaluate([]), DataError, "no records"),
    ("unknown label of a picture", lambda: encoder(num_labels=3).evaluate([LABELED]), DataError, "'pear'"),
    ("classify: a bad picture", verb(classify.run, top=1, batch_size=2, as_json=False), DataError, "could not be read"),
    ("embed: a bad picture", verb(embed.run, **EMBED), DataError, "could not be read"),
    ("embed: a prompt", verb(embed.run, **{**EMBED, "prompt": "query: "}), click.UsageError, "--prompt"),
    ("pictures for a model of texts", lambda: check_reads(3, "embed", pictures=True), UnsupportedError, "int"),
    ("train: model", training(model="rnn"), ConfigError, "'rnn'"),
    ("train: size", training(size="enormous", model_settings=None), ConfigError, "enormous"),
    ("train: start of another kind", lambda: ClassifyPictures(TrainOptions(files=("a",), start="b"), 3), ConfigError,
     "int"),
    ("train: setting", training(task_settings={"crops": 1}), ConfigError, "'crops'"),
    ("train: flip", training(task_settings={"flip": 3}), ConfigError, "flip=3"),
    ("train: crop", training(task_settings={"crop": -1}), ConfigError, "crop=-1"),
    ("train: channels", training(model_settings={**TINY, "num_channels": 1}), ConfigError, "num_channels=1"),
    ("train: folders and files", mixed_files, DataError, "is a folder"),
    ("train: folder without pictures", empty_folder, DataError, "a folder for each class"),
    ("train: one label of pictures", lambda: surveyed("a", "a"), DataError, "two or more"),
    ("train: too many labels", lambda: surveyed(*map(str, range(MAX_LABELS + 1))), DataError, "10,000 labels"),
    ("train: picture that is missing", unreadable, DataError, "photos.tsv:2: none.png does not exist"),
]  # fmt: skip
