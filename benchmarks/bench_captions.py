"""Does a captioner describe scenes, and does it look at a thing when it names it: soft, hard and Gumbel attention?

Scenes are 2 to 4 photographs of clothes on a canvas of 2 x 2 places, with captions such as "a bag left of a sandal
above a dress". Photographs of training and of test are apart, as the data set is split. Pointing is the share of nouns
whose largest weight stands in the box of the thing; a cell at random is the baseline. Each run has the same number of
steps on one thread; its minutes are of the processor. Runs that --out holds are not repeated.
"""

import argparse
import gzip
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from common import folder_of_runs, kept, replaced, write
from PIL import Image

import regard as rg
from regard.tasks.caption import Captioner
from regard.tasks.captioned_pictures import Captioned

CLASSES = {0: "shirt", 1: "trouser", 3: "dress", 8: "bag", 5: "sandal", 9: "boot"}
SIZE, PLACE, PHOTO = 64, 32, 28  # pixels of a side: of the canvas, of a place on it, of a photograph
LAYOUTS = ((2, 0), (1, 1), (2, 1), (1, 2), (2, 2))  # things in the two rows
SCENES = {"train": 12_000, "test": 1_000}
SMALL: dict[str, Any] = {"channels": 16, "hidden_dim": 192, "embed_dim": 96, "align_dim": 96}
BATCH_TOKENS = 512  # about 45 scenes
CONFIGURATIONS: dict[str, dict[str, Any]] = {
    "soft": {},
    "hard": {"attention_kind": "hard"},
    "straight-through": {"attention_kind": "straight-through"},
    "gumbel": {"attention_kind": "gumbel"},
    "soft, not doubly stochastic": {"doubly_stochastic": 0.0},
}


class Scene(NamedTuple):
    """A picture (64, 64, 3) uint8, its caption, and the box of each noun's thing, in pixels."""

    pixels: np.ndarray[Any, Any]
    caption: str
    boxes: list[tuple[int, int, int, int]]


def photographs(folder: Path, part: str) -> dict[str, np.ndarray[Any, Any]]:
    """The photographs (N, 28, 28) of each class, in MNIST's file format."""
    pixels = np.frombuffer(gzip.decompress((folder / f"{part}-images-idx3-ubyte.gz").read_bytes()), np.uint8, offset=16)
    labels = np.frombuffer(gzip.decompress((folder / f"{part}-labels-idx1-ubyte.gz").read_bytes()), np.uint8, offset=8)
    return {name: pixels.reshape(-1, PHOTO, PHOTO)[labels == label] for label, name in CLASSES.items()}


def scenes(photos: dict[str, np.ndarray[Any, Any]], count: int, seed: int) -> Iterator[Scene]:
    """Random scenes."""
    random, names = np.random.default_rng(seed), list(photos)
    for _ in range(count):
        canvas, boxes, rows = np.zeros((SIZE, SIZE), np.uint8), [], []
        for row, things in enumerate(LAYOUTS[random.integers(len(LAYOUTS))]):
            chosen = [names[i] for i in random.integers(0, len(names), things)]
            for place, name in zip(sorted(random.permutation(2)[:things]), chosen, strict=True):
                top, left = (PLACE * x + random.integers(0, PLACE - PHOTO + 1) for x in (row, place))
                canvas[top : top + PHOTO, left : left + PHOTO] = photos[name][random.integers(len(photos[name]))]
                boxes.append((left, top, left + PHOTO, top + PHOTO))
            if chosen:
                rows.append(" left of ".join(f"a {name}" for name in chosen))
        yield Scene(np.repeat(canvas[..., None], 3, 2), " above ".join(rows), boxes)


def written(folder: Path, made: Iterator[Scene]) -> str:
    """A table of pictures and captions."""
    folder.mkdir(parents=True)
    lines = []
    for number, scene in enumerate(made):
        Image.fromarray(scene.pixels).save(folder / f"{number}.png", compress_level=1)
        lines.append(f"{number}.png\t{scene.caption}\n")
    (folder / "captions.tsv").write_text("".join(lines), encoding="utf-8")
    return str(folder / "captions.tsv")


def pointing(captioner: Captioner, test: list[Scene]) -> float:
    """Share of nouns whose largest weight stands in the box of their thing, with the right caption read."""
    module, tokenizer, right, total = captioner.module.eval(), captioner.tokenizer, 0, 0
    cell, columns = SIZE // module.config.grid[0], module.config.grid[1]
    for scene in test:
        words = scene.caption.split(" ")
        pieces = [tokenizer.encode(word if i == 0 else f" {word}") for i, word in enumerate(words)]
        ids = [token for piece in pieces for token in piece]
        inputs = captioner.processor(scene.pixels)[None]
        with torch.no_grad():
            weights = module(inputs, None, torch.tensor([[module.vocabulary.bos, *ids]])).weights[0, : len(ids)]
        boxes, at = iter(scene.boxes), 0
        for word, piece in zip(words, pieces, strict=True):
            if word in CLASSES.values():
                row, column = divmod(int(weights[at : at + len(piece)].mean(0).argmax()), columns)
                x, y = cell * (column + 0.5), cell * (row + 0.5)
                x0, y0, x1, y1 = next(boxes)
                right, total = right + (x0 <= x < x1 and y0 <= y < y1), total + 1
            at += len(piece)
    return right / total


def run(name: str, seed: int, files: dict[str, str], test: list[Scene], given: argparse.Namespace, folder: Path) -> Any:
    """Train a captioner and measure it."""
    start = time.process_time()
    captioner = rg.train(
        files["train"], task="caption", out=str(folder / f"{name}-{seed}"), steps=given.steps, seed=seed, threads=1,
        model_settings={**SMALL, **CONFIGURATIONS[name]}, learning_rate=given.rate, batch_tokens=BATCH_TOKENS,
        vocab_size=300,
    )  # fmt: skip
    minutes = round((time.process_time() - start) / 60, 1)
    table = Path(files["test"])
    rows = [line.split("\t") for line in table.read_text(encoding="utf-8").splitlines()]
    records = [Captioned(str(table.parent / picture), caption, picture) for picture, caption in rows]
    exact = captioner.evaluate(records, search=rg.Greedy()).exact
    return {"exact": exact, "pointing": pointing(captioner, test), "minutes": minutes}


def cases(given: argparse.Namespace, folder: Path) -> Iterator[dict[str, Any]]:
    """Exact captions and pointing of each configuration and seed."""
    counts = {"train": 200, "test": 8} if given.quick else SCENES
    photos = {part: photographs(given.fashion, file) for part, file in (("train", "train"), ("test", "t10k"))}
    test = list(scenes(photos["test"], counts["test"], seed=1))
    files = {}
    for part, made in (("train", scenes(photos["train"], counts["train"], seed=0)), ("test", iter(test))):
        table = folder / "scenes" / part / "captions.tsv"
        files[part] = str(table) if table.exists() else written(table.parent, made)
    area = round(float(np.mean([(x1 - x0) * (y1 - y0) / SIZE**2 for s in test for x0, y0, x1, y1 in s.boxes])), 3)
    yield {"case": "captions: a cell at random", "unit": "pointing", "value": area, "bar": 0.25}
    bars = {"soft": (0.9, 0.95), "hard": (None, 0.9)}
    for seed in given.seeds:
        for name in given.kinds:
            result = kept(folder / f"{name}-{seed}.json", partial(run, name, seed, files, test, given, folder))
            case = f"captions: {name}, {given.steps:,} steps, seed {seed}"
            for unit, bar in zip(("exact", "pointing"), bars.get(name, (None, None)), strict=True):
                value = round(result[unit], 3)
                yield {
                    "case": case,
                    "unit": unit,
                    "value": value,
                    "bar": bar,
                    "at_least": True,
                    "minutes": result["minutes"],
                }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--fashion", type=Path, required=True, help="folder of photographs in MNIST's file format")
    parser.add_argument("--out", help="folder of the runs, to keep them and go on from them")
    parser.add_argument("--steps", type=int, default=3000, help="of each run")
    parser.add_argument("--rate", type=float, help="peak learning rate; by default, the model's")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--kinds", nargs="+", choices=list(CONFIGURATIONS), default=list(CONFIGURATIONS))
    parser.add_argument("--quick", action="store_true", help="try the script out")
    given = parser.parse_args()
    torch.set_num_threads(1)
    if given.quick:
        given.steps = 4
    with folder_of_runs(given.out) as folder:
        write("captions", replaced("captions", cases(given, folder)), quick=given.quick)


if __name__ == "__main__":
    main()
