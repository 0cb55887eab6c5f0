"""How good is a translator of one's own pairs: trained from nothing, or fine-tuned from the model that regard ships?

The pairs are the corpus's, from target to source, a direction in which the shipped model was not trained. Each run is a
process of its own on one thread, with so many steps that other work on the machine changes no score; its minutes are
the processor time of the whole process, reading, tokenizing and evaluations included. Test rows are in no training.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from common import processor_minutes, replaced, write
from translation import corpus, options, read, texts

VALID_ROWS, TEST_ROWS = 500, 500
EVALUATIONS = 4  # in a run


class Run(NamedTuple):
    """A row of the table."""

    start: str  # "en-it" or "nothing"
    size: str  # of the Transformer; that of en-it is small
    pairs: int
    steps: int


RUNS = [
    Run("en-it", "small", 2_000, 450),
    Run("en-it", "small", 20_000, 450),
    Run("nothing", "small", 20_000, 450),
    Run("en-it", "small", 20_000, 1_350),
    Run("nothing", "small", 20_000, 1_350),
    Run("nothing", "tiny", 20_000, 1_350),
]


def reversed_rows(file: str, path: Path, count: int) -> str:
    """The first rows of a file of pairs, target first, spread over the whole file."""
    rows = texts(file)
    chosen = rows[:: max(1, len(rows) // count)][:count]
    path.write_text("".join(f"{target}\t{source}\n" for source, target in chosen), encoding="utf-8")
    return str(path)


def command(run: Run, files: dict[str, str], out: Path, quick: bool) -> list[str]:
    """The command line of a run."""
    start = ["--from", "en-it"] if run.start == "en-it" else ["--size", run.size]
    return [
        *("train", files["train"], "--valid", files["valid"], "--out", str(out), *start),
        *("--steps", str(8 if quick else run.steps), "--threads", "1"),
        *("--evaluate-every", str(4 if quick else -(-run.steps // EVALUATIONS))),
    ]


def cases(given: argparse.Namespace, folder: Path) -> Iterator[dict[str, Any]]:
    """BLEU and chrF of each run."""
    corpus_files = corpus(given, folder)
    for run in (RUNS[number - 1] for number in given.runs):
        name = f"{run.start}-{run.size}-{run.pairs}-{run.steps}"
        out = Path(given.out or folder) / name
        counts = {"train": run.pairs, "valid": VALID_ROWS, "test": 8 if given.quick else TEST_ROWS}
        files = {
            part: reversed_rows(getattr(corpus_files, part), folder / f"{part}.tsv", count)
            for part, count in counts.items()
        }
        minutes = processor_minutes(command(run, files, out, given.quick))
        arguments = ["evaluate", files["test"], "--model", str(out), "--threads", "1", "--json"]
        result = subprocess.run(
            [sys.executable, "-m", "regard", *arguments], check=True, capture_output=True, text=True
        )
        found = json.loads(result.stdout)
        training = json.loads((out / "config.json").read_text(encoding="utf-8"))["training"]
        about = {
            **run._asdict(), "minutes": round(minutes, 1), "tokens": training["tokens"],
            "best_step": training["step"], "valid_loss": training["valid_loss"], "threads": 1,
            "data": corpus_files.name,
        }  # fmt: skip
        case = f"from {run.start}, {run.size}, {run.pairs:,} pairs, {run.steps:,} steps, target to source"
        for unit, key in (("BLEU", "bleu"), ("chrF", "chrf")):
            yield {"case": case, "unit": unit, "value": round(found["scores"][key], 1), "bar": None, **about}


def main() -> None:
    parser = options(__doc__)
    parser.add_argument("--out", help="folder of the runs, to keep them")
    numbers = range(1, len(RUNS) + 1)
    parser.add_argument("--runs", type=int, nargs="+", choices=numbers, default=[*numbers], help="only some")
    given = read(parser)
    if given.quick:
        given.runs = [1, 6]
    with tempfile.TemporaryDirectory() as name:
        write("fine_tuning", replaced("fine_tuning", cases(given, Path(name))), quick=given.quick)


if __name__ == "__main__":
    main()
