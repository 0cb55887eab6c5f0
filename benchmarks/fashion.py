"""Photographs of clothes as files and tables of records, and the models that learn them: a million parameters each."""

import gzip
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import nn

from regard.models.registry import build, config_from_plain
from regard.models.vit_names import from_vit, to_vit
from regard.tasks.classify_pictures import SMALL, ClassifyPictures

LABELS = (
    "t-shirt", "trouser", "pullover", "dress", "coat", "sandal", "shirt", "sneaker", "bag", "ankle-boot"
)  # fmt: skip
SIDE = 28
HEADER = {"images": 16, "labels": 8}  # bytes
TENTH = 10  # of the pictures of a run, one in so many is held out, to choose the best checkpoint
TOLERANCE = 0.03  # of the parameters that networks with attention share with the one without


class Model(NamedTuple):
    """An architecture of the command line, and its settings."""

    model: str
    settings: dict[str, Any]
    task: str = "classify"


VIT = "ViT"
CNN, AUGMENTED, NON_LOCAL = "CNN", "CNN, attention-augmented", "CNN, non-local"
HYBRID, PEER = "hybrid", "ViT of transformers"
POSITIONS = {f"ViT, positions {x}": x for x in ("none", "2d", "relative-bias", "relative-key")}
MODELS: dict[str, Model] = {
    VIT: Model("vit", {}),
    PEER: Model("vit", {}, task="fashion:TransformersViT"),
    # One layer fewer, as Xiao et al. 2021 have it, makes room for the stem.
    HYBRID: Model("vit", {"stem": "convolution", "num_layers": SMALL["vit"]["num_layers"] - 1}),
    **{name: Model("vit", {"positions": x}) for name, x in POSITIONS.items()},
    AUGMENTED: Model("conv-attention", {"attention_kind": "augmented"}),
    NON_LOCAL: Model("conv-attention", {"attention_kind": "non-local"}),
    CNN: Model("conv-attention", {"attention_kind": "none"}),
}


class TransformersViT(ClassifyPictures):  # type: ignore[misc]
    """The same task, where transformers' own module is trained."""

    name = "pictures-of-transformers"

    def build(self) -> nn.Module:
        import transformers  # here, so that it takes no time of the other runs

        fields, _ = to_vit(super().build())  # type: ignore[arg-type]
        config = transformers.ViTConfig(**fields, num_labels=len(self.preparation.labels))
        module: nn.Module = transformers.ViTForImageClassification(config)
        return module

    def sample(self, module: nn.Module, number: int) -> list[tuple[str, str]]:
        return []

    def save(self, folder: Path, module: Any, training: Any) -> None:
        super().save(folder, from_vit(module.config.to_dict(), module.state_dict()), training)


def settings_of(name: str) -> dict[str, Any]:
    """The fields of a model for these pictures; of a network with or without attention, as many parameters."""
    model, settings, _ = MODELS[name]
    plain = {"image_size": SIDE, **settings}
    if model != "conv-attention" or name == AUGMENTED:
        return plain
    target = parameters(AUGMENTED)
    counts = {c: _count(model, {**plain, "channels": c}) for c in range(24, 64, 2)}
    channels = min(counts, key=lambda c: abs(counts[c] - target))
    if abs(counts[channels] / target - 1) > TOLERANCE:
        raise SystemExit(f"{name} has {counts[channels]:,} parameters with {channels} channels; expected {target:,}")
    return {**plain, "channels": channels}


def parameters(name: str) -> int:
    """How many parameters a model has."""
    return _count(MODELS[name].model, settings_of(name))


def _count(model: str, plain: dict[str, Any]) -> int:
    with torch.device("meta"):
        module = build(config_from_plain(model, {**SMALL[model], **plain, "num_labels": len(LABELS)}))
    return sum(p.numel() for p in module.parameters())


def tables(source: Path, folder: Path, pictures: int) -> dict[str, str]:
    """Files of records: `train` and `valid`, together the first so many pictures, and `test`, all of the test set."""
    files = {}
    for part, count in (("train", pictures), ("t10k", None)):
        names, labels = _photographs(source, folder, part, count)
        rows = [f"{name}\t{label}\n" for name, label in zip(names, labels, strict=True)]
        valid = [row for i, row in enumerate(rows) if i % TENTH == 0]
        parts = (
            {"test": rows}
            if part == "t10k"
            else {"train": [r for i, r in enumerate(rows) if i % TENTH], "valid": valid}
        )
        for name, some in parts.items():
            path = folder / (f"{name}.tsv" if name == "test" else f"{name}-{pictures}.tsv")
            path.write_text("picture\tlabel\n" + "".join(some), encoding="utf-8")
            files[name] = str(path)
    return files


def _photographs(source: Path, folder: Path, part: str, count: int | None) -> tuple[list[str], list[str]]:
    """Names of the files of the first `count` pictures of a part, written unless they are there, and their labels."""
    from PIL import Image

    codes = _read(source, part, "labels")[:count]
    names = [f"{part}/{i}.png" for i in range(len(codes))]
    if not (folder / names[-1]).exists():
        (folder / part).mkdir(parents=True, exist_ok=True)
        pixels = _read(source, part, "images").reshape(-1, SIDE, SIDE)
        for name, one in zip(names, pixels, strict=False):
            Image.fromarray(one).save(folder / name)
    return names, [LABELS[code] for code in codes]


def _read(source: Path, part: str, kind: str) -> "np.ndarray[Any, np.dtype[np.uint8]]":
    """Bytes of a file in MNIST's format, its header left out."""
    dimensions = 3 if kind == "images" else 1
    with gzip.open(source / f"{part}-{kind}-idx{dimensions}-ubyte.gz") as file:
        return np.frombuffer(file.read(), np.uint8, offset=HEADER[kind])
