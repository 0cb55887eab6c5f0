"""How many characters of a line of text in a picture are read wrong, in fonts that training has not seen?

Lines are of 10 to 30 characters, cut from the sentences of a text, in gray on gray at random sizes and places. Fonts
are the files of some folders; families with equal glyphs count once, 20 are drawn for training, 8 others for the test.
Each run has a number of steps on one thread; its minutes are of the processor. Runs that --out holds are not repeated.
"""

import argparse
import random
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from common import folder_of_runs, kept, replaced, write
from PIL import Image, ImageDraw, ImageFont

import regard as rg
from regard.tasks.captioned_pictures import Captioned
from regard.tasks.word_errors import edits

HEIGHT, WIDTH = 32, 320
ROWS = {"train": 20_000, "test": 500}
MIN_CHARACTERS, MAX_CHARACTERS = 10, 30
SAMPLE = "Hamburgefonstiv 0123456789 QRWXYZ,;.!?"
TRAINED, HELD_OUT = 20, 8  # families of fonts
MODELS: dict[str, dict[str, Any]] = {
    "picture-transformer": {"channels": 12, "embed_dim": 128, "num_heads": 4, "ffn_dim": 384, "encoder_layers": 1},
    "show-attend-tell": {"channels": 12, "hidden_dim": 256, "embed_dim": 96, "align_dim": 96},
}


def fonts(folders: list[Path]) -> dict[str, list[str]]:
    """Files of Latin fonts, by family."""
    families: dict[str, list[str]] = {}
    glyphs: set[bytes] = set()
    for file in sorted(path for folder in folders for path in folder.rglob("*.?tf")):
        font = ImageFont.truetype(str(file), 20)
        masks = {bytes(font.getmask(character)) for character in SAMPLE}
        sample = bytes(font.getmask(SAMPLE))
        if len(masks) > 30 and sample not in glyphs:  # fonts of symbols have one box for most letters
            glyphs.add(sample)
            families.setdefault(str(font.getname()[0]), []).append(str(file))
    return families


def lines_of(text: Path, count: int, draw: np.random.Generator) -> Iterator[str]:
    """Lines of whole words, of 10 to 30 characters."""
    words = text.read_text(encoding="utf-8").encode("ascii", "ignore").decode().split()
    written = 0
    while written < count:
        at, line = int(draw.integers(len(words))), ""
        length = int(draw.integers(MIN_CHARACTERS, MAX_CHARACTERS + 1))
        while at < len(words) and len(f"{line} {words[at]}".strip()) <= length:
            line, at = f"{line} {words[at]}".strip(), at + 1
        if len(line) >= MIN_CHARACTERS:
            written += 1
            yield line


def drawn(line: str, file: str, draw: np.random.Generator) -> Image.Image:
    """A picture (32, 320) of a line."""
    paper, ink = (int(x) for x in (draw.integers(200, 256), draw.integers(0, 90)))
    size = int(draw.integers(15, 22))
    while True:
        font = ImageFont.truetype(file, size)
        left, top, right, bottom = font.getbbox(line)
        if right - left <= WIDTH - 4 and bottom - top <= HEIGHT - 2:
            break
        size -= 1
    picture = Image.new("L", (WIDTH, HEIGHT), paper)
    x, y = (int(draw.integers(1, n + 1)) for n in (WIDTH - 2 - (right - left), HEIGHT - 1 - (bottom - top)))
    ImageDraw.Draw(picture).text((x - left, y - top), line, fill=ink, font=font)
    return picture


def written(folder: Path, text: Path, files: list[str], count: int, seed: int) -> str:
    """A table of pictures and lines."""
    folder.mkdir(parents=True)
    draw, rows = np.random.default_rng(seed), []
    for number, line in enumerate(lines_of(text, count, draw)):
        drawn(line, files[int(draw.integers(len(files)))], draw).save(folder / f"{number}.png", compress_level=1)
        rows.append(f"{number}.png\t{line}\n")
    (folder / "lines.tsv").write_text("".join(rows), encoding="utf-8")
    return str(folder / "lines.tsv")


def run(model: str, seed: int, files: dict[str, str], given: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Train a model and measure the share of wrong characters."""
    start = time.process_time()
    captioner = rg.train(
        files["train"], task="caption", model=model, out=str(folder / f"{model}-{seed}"), steps=given.steps, seed=seed,
        threads=1, model_settings={"image_size": HEIGHT, "image_width": WIDTH, **MODELS[model]},
        learning_rate=given.rate, batch_tokens=given.batch, vocab_size=300,
    )  # fmt: skip
    minutes = round((time.process_time() - start) / 60, 1)
    table = Path(files["test"])
    rows = [line.split("\t") for line in table.read_text(encoding="utf-8").splitlines()]
    records = [Captioned(str(table.parent / picture), line, picture) for picture, line in rows]
    texts = captioner.caption([record.picture for record in records], search=rg.Greedy())
    wrong = sum(edits(str(x), record.caption) for x, record in zip(texts, records, strict=True))
    return {"error": wrong / sum(len(record.caption) for record in records), "minutes": minutes}


def cases(given: argparse.Namespace, folder: Path) -> Iterator[dict[str, Any]]:
    """Character error rates."""
    families = fonts(given.fonts)
    names = random.Random(0).sample(sorted(families), TRAINED + HELD_OUT)
    of_part = {"train": names[:TRAINED], "test": names[TRAINED:]}
    counts = {"train": 60, "test": 6} if given.quick else ROWS
    files = {}
    for seed, part in enumerate(("train", "test")):
        chosen = [file for name in of_part[part] for file in families[name]]
        table = folder / "lines" / part / "lines.tsv"
        source = given.text if part == "train" else given.test_text
        files[part] = str(table) if table.exists() else written(table.parent, source, chosen, counts[part], seed)
    about = {"fonts": of_part}
    for seed in given.seeds:
        for model in given.models:
            result = kept(folder / f"{model}-{seed}.json", partial(run, model, seed, files, given, folder))
            case = f"lines of text, fonts held out: {model}, {given.steps:,} steps, seed {seed}"
            value = round(100 * result["error"], 2)
            yield {
                "case": case,
                "unit": "% of characters wrong",
                "value": value,
                "bar": 2,
                "minutes": result["minutes"],
                **about,
            }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--text", type=Path, required=True, help="text file that lines of training are from")
    parser.add_argument("--test-text", type=Path, required=True, help="another one, for lines of the test")
    parser.add_argument("--fonts", type=Path, nargs="+", required=True, help="folders of fonts")
    parser.add_argument("--out", help="folder of the runs, to keep them and go on from them")
    parser.add_argument("--steps", type=int, default=3000, help="of each run")
    parser.add_argument("--batch", type=int, default=768, help="tokens of a batch")
    parser.add_argument("--rate", type=float, help="peak learning rate; by default, the model's")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--models", nargs="+", choices=list(MODELS), default=list(MODELS))
    parser.add_argument("--quick", action="store_true", help="try the script out")
    given = parser.parse_args()
    torch.set_num_threads(1)
    if given.quick:
        given.steps = 3
    with folder_of_runs(given.out) as folder:
        write("text_line", replaced("text_line", cases(given, folder)), quick=given.quick)


if __name__ == "__main__":
    main()
