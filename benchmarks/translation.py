"""What the benchmarks of the translator share: pairs of texts, options, and rates over time."""

import argparse
import dataclasses
import gzip
import math
import os
import random
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import nn

from regard.data.rows import read_pairs
from regard.tasks.translate import Translate
from regard.train.device import pick_precision
from regard.train.options import TrainOptions
from regard.train.trainer import Trainer, make_optimizer

VOCABULARY = 8000
SYLLABLES = [c + v for c in "bcdfglmnprstvz" for v in "aeiou"]


class Corpus(NamedTuple):
    """Files of pairs."""

    name: str
    train: str
    valid: str
    test: str


def options(question: str | None) -> argparse.ArgumentParser:
    """A parser of what all of these benchmarks are told."""
    parser = argparse.ArgumentParser(description=question)
    parser.add_argument(
        "--pairs",
        default=os.environ.get("REGARD_PAIRS"),
        help="folder of train.tsv.gz, valid.tsv.gz and test.tsv.gz; else $REGARD_PAIRS; else pairs made here",
    )
    parser.add_argument("--threads", type=int, help="of all who take part; all cores by default")
    parser.add_argument("--device", default="cpu", help="where what is only learned, and not timed, is trained")
    parser.add_argument("--quick", action="store_true", help="try the script out, in less than a minute")
    return parser


def read(parser: argparse.ArgumentParser, arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """The options of this process, whose threads are set."""
    given = parser.parse_args(arguments)
    if given.threads is not None:
        torch.set_num_threads(given.threads)
    given.threads = torch.get_num_threads()
    return given


def corpus(given: argparse.Namespace, folder: Path) -> Corpus:
    """The pairs that the options name, or pairs made here, put into a folder."""
    parts = ("train", "valid", "test")
    if given.pairs:
        return Corpus(Path(given.pairs).name, *(str(Path(given.pairs) / f"{part}.tsv.gz") for part in parts))
    counts = (300, 40, 40) if given.quick else (40_000, 1000, 1000)
    for part, count in zip(parts, counts, strict=True):
        with gzip.open(folder / f"{part}.tsv.gz", "wt", encoding="utf-8", compresslevel=1) as file:
            file.writelines(f"{source}\t{target}\n" for source, target in made(part, count))
    return Corpus("made", *(str(folder / f"{part}.tsv.gz") for part in parts))


def made(seed: str, count: int) -> list[tuple[str, str]]:
    """Pairs in two made-up languages: words of like frequency and length as real ones, and neighbors that swap places.

    Both languages are the same for every seed.
    """
    choice = random.Random("languages")
    words = ["".join(choice.choices(SYLLABLES, k=choice.randint(1, 4))) for _ in range(6000)]
    others = ["".join(choice.choices(SYLLABLES, k=choice.randint(1, 4))) for _ in words]
    frequency = [1 / rank for rank in range(1, len(words) + 1)]
    choice = random.Random(seed)
    pairs = []
    for _ in range(count):
        length = min(100, max(2, round(math.exp(choice.gauss(2.8, 0.6)))))
        said = choice.choices(range(len(words)), frequency, k=length)
        swapped = [said[i ^ 1] if i ^ 1 < length else said[i] for i in range(length)]
        pairs.append((" ".join(words[i] for i in said), " ".join(others[i] for i in swapped)))
    return pairs


def prepared(files: Corpus, folder: Path, *, vocab_size: int = VOCABULARY) -> Translate:
    """The task of translating these pairs, which lie on disk as ids."""
    task = Translate(TrainOptions(files=(files.train,), valid=files.valid, vocab_size=vocab_size))
    task.prepare(folder / "data", lambda doing, rows: None)
    return task


def trainer_of(task: Translate, module: nn.Module, precision: str, **options: Any) -> Trainer:
    """What trains a model for a task, with other options than the default: batch_tokens, seed."""
    changed = dataclasses.replace(task.options, **options)
    device = next(module.parameters()).device
    dtype = pick_precision(precision, device)
    return Trainer(task, module, make_optimizer(module, changed), changed, precision=dtype)


def mean_tokens(task: Translate, batches: int) -> float:
    """Target tokens of a batch, end marks counted, of an epoch of so many batches."""
    return task.units(np.arange(task.counts["train"])) / batches


def texts(file: str, count: int | None = None) -> list[tuple[str, str]]:
    """The first rows of a file of pairs."""
    return [(pair.source, pair.target) for pair in read_pairs([file])][:count]


def spread_of(values: Sequence[float]) -> dict[str, float]:
    """Median and range of a few measurements."""
    return {"median": statistics.median(values), "lowest": min(values), "highest": max(values)}
