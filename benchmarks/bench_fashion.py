"""What do vision Transformers, CNNs with attention and hybrids learn from photographs of clothes in equal minutes?

Each run is a process of its own, as `regard train` makes it; its minutes count from the start of the process, decoding
of the files and evaluations included. A tenth of a run's pictures choose its best checkpoint, which is measured once on
the 10,000 pictures of the test set. A run is a line of results/fashion.jsonl as soon as it ends: the same command
started again goes on, a run that was interrupted from its checkpoint if --out keeps the folders.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

START = time.perf_counter()

import torch  # noqa: E402 - after the process's start
from architectures import Runs  # noqa: E402
from common import RESULTS, commit, processor, replaced, write  # noqa: E402
from fashion import AUGMENTED, CNN, HYBRID, MODELS, NON_LOCAL, PEER, POSITIONS, VIT, parameters, settings_of, tables  # noqa: E402

import regard as rg  # noqa: E402
from regard.tasks.classify_pictures import ClassifyPictures  # noqa: E402
from regard.train.options import TrainOptions  # noqa: E402
from regard.train.run import train  # noqa: E402
from regard.train.run_file import RUN_FILE  # noqa: E402

ALL, MANY, FEW = 60_000, 6_000, 1_000
SOME = 400  # of a trial of the script
SCREENED = (5e-4, 1e-3, 2e-3, 4e-3)
BARS = {VIT: 0.915, AUGMENTED: 0.935}  # accuracy of the headline runs


class Group(NamedTuple):
    """Runs that are compared."""

    models: tuple[str, ...]
    pictures: tuple[int, ...]
    minutes: float
    seeds: tuple[int, ...]
    rates: tuple[float | None, ...] = (None,)  # None for the architecture's own


GROUPS: dict[str, Group] = {
    "rates": Group((VIT, AUGMENTED), (MANY,), 0.75, (1,), SCREENED),
    "headline": Group((VIT, AUGMENTED), (ALL,), 45, (1,)),
    "comparison": Group((VIT, PEER, CNN, AUGMENTED, NON_LOCAL), (ALL,), 10, (1, 2, 3)),
    "curves": Group((VIT, CNN, HYBRID), (FEW, MANY), 3, (1, 2, 3)),
    "positions": Group((VIT, *POSITIONS), (MANY,), 3, (1, 2, 3)),
}
DEFAULT = ("headline", "comparison", "curves", "positions")


class Run(NamedTuple):
    """A training run."""

    name: str
    pictures: int
    minutes: float
    seed: int
    rate: float | None = None

    @property
    def folder(self) -> str:
        """Name of its folder."""
        words = "".join(x if x.isalnum() else "-" for x in self.name)
        return f"{words}-{self.pictures}-{self.minutes:g}-{self.seed}-{self.rate or 'own'}"

    def is_of(self, line: dict[str, Any]) -> bool:
        """Whether a line of the results is of this run."""
        return all(line[field] == x for field, x in self._asdict().items())


def runs_of(group: Group, given: argparse.Namespace) -> list[Run]:
    """The runs of a group, seed by seed, so that what is there when it is stopped can be compared."""
    minutes, seeds = given.minutes or group.minutes, given.seeds or group.seeds
    pictures = [min(count, SOME) if given.quick else count for count in group.pictures]
    return [
        Run(name, count, minutes, seed, rate)
        for seed in seeds
        for count in pictures
        for name in group.models
        for rate in group.rates
    ]


def options_of(run: Run, files: dict[str, str], out: Path, threads: int, *, quick: bool) -> TrainOptions:
    """The options of a run."""
    model = MODELS[run.name]
    file = out / run.folder / RUN_FILE
    before = json.loads(file.read_text())["options"] if file.exists() else {}  # a run that goes on keeps its length
    minutes = before.get("minutes", run.minutes - (time.perf_counter() - START) / 60)
    return TrainOptions(
        files=(files["train"],), valid=files["valid"], task=model.task, model=model.model,
        model_settings=settings_of(run.name), out=str(out / run.folder), seed=run.seed, threads=threads,
        learning_rate=run.rate, **({"steps": 4} if quick else {"minutes": minutes}),
    )  # fmt: skip


def measure(run: Run, files: dict[str, str], out: Path, threads: int, *, quick: bool) -> dict[str, Any]:
    """Train, in this process, and classify the test set once."""
    folder = out / run.folder
    if not (folder / "config.json").exists() or not json.loads((folder / RUN_FILE).read_text()).get("finished"):
        train(options_of(run, files, out, threads, quick=quick))
    runner = rg.load(folder)
    test = list(ClassifyPictures.read([files["test"]]))[: SOME if quick else None]
    accuracy = runner.evaluate(test, batch_size=100).scores.accuracy
    training = runner.config["training"]
    lines = (folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    last = json.loads(lines[-1])
    return {
        "accuracy": accuracy, "valid_accuracy": training["valid_accuracy"], "best_step": training["step"],
        "steps": last["step"], "pictures_seen": last["pictures"], "pictures_per_second": last["pictures_per_second"],
        "measured_minutes": round(last["seconds"] / 60, 2), "parameters": parameters(run.name), "threads": threads,
    }  # fmt: skip


def learn(runs: Runs, run: Run, given: argparse.Namespace, out: Path) -> None:
    """A run in a process of its own, whose result is kept; nothing if it is there."""
    if any(run.is_of(line) for line in runs.found()):
        return
    print(f"{run.name}, {run.pictures:,} pictures, {run.minutes:g} minutes, seed {run.seed}, {run.rate}", flush=True)
    files = tables(given.fashion, out, run.pictures)
    plain = {"run": run, "files": files, "out": str(out), "threads": given.threads, "quick": given.quick}
    command = [sys.executable, __file__, "--child", json.dumps(plain)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as child:
        try:
            output, _ = child.communicate()
        except KeyboardInterrupt:  # which the run has too: it writes a checkpoint
            child.wait()
            raise
    if child.returncode:
        raise SystemExit(f"{run.name} ended with {child.returncode}; the same command goes on from its checkpoint")
    measured = json.loads(output.splitlines()[-1])
    runs.add(**run._asdict(), commit=commit(), processor=processor(), torch=torch.__version__, **measured)
    print(f"  accuracy {measured['accuracy']:.4f}, {measured['pictures_per_second']:,.0f} pictures/s", flush=True)


def cases(runs: Runs, groups: dict[str, list[Run]]) -> Iterator[dict[str, Any]]:
    """A case for each model of a group, and one for ours above the peer."""
    names: set[str] = set()  # of cases: groups share runs
    for group, wanted in groups.items():
        lines = [line for line in runs.found() if any(run.is_of(line) for run in wanted)]
        means = {}
        for name, pictures, rate in dict.fromkeys((run.name, run.pictures, run.rate) for run in wanted):
            of = [x for x in lines if (x["name"], x["pictures"], x["rate"]) == (name, pictures, rate)]
            if not of:
                continue
            values = [round(100 * line["accuracy"], 2) for line in of]
            means[name] = statistics.mean(values)
            bar = 100 * BARS[name] if group == "headline" else None
            minutes = of[0]["minutes"]
            case = f"clothes, {pictures:,} pictures, {minutes:g} minutes: {name}"
            case += f", learning rate {rate:g}" if rate else ""
            if case in names:
                continue
            names.add(case)
            yield {"case": case, "unit": "% accuracy",
                   "value": round(means[name], 2), "bar": bar, "at_least": True, "values": values,
                   "standard_deviation": statistics.stdev(values) if len(values) > 1 else None,
                   "parameters": of[0]["parameters"],
                   "pictures_per_second": round(statistics.mean(x["pictures_per_second"] for x in of))}  # fmt: skip
        if VIT in means and PEER in means:
            yield {"case": "clothes: ViT above that of transformers, the same recipe and minutes", "unit": "points",
                   "value": round(means[VIT] - means[PEER], 2), "bar": 0, "at_least": True}  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--fashion", type=Path, default=os.environ.get("REGARD_FASHION"), help="folder of the data set")
    parser.add_argument("--out", type=Path, help="folder of the pictures and runs, to keep them and go on from them")
    parser.add_argument("--groups", nargs="+", choices=GROUPS, default=list(DEFAULT))
    parser.add_argument("--minutes", type=float, help="of each run, in place of the group's")
    parser.add_argument("--seeds", type=int, nargs="+", help="in place of the group's")
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--learn", action="store_true", help="only make the runs that are missing")
    parser.add_argument("--quick", action="store_true", help="try the script out")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.child:
        plain = json.loads(given.child)
        plain |= {"run": Run(*plain["run"]), "out": Path(plain["out"])}
        print(json.dumps(measure(**plain)))
        return
    if given.fashion is None:
        parser.error("--fashion FOLDER, or $REGARD_FASHION: four .gz files in MNIST's format")
    if given.quick:
        given.seeds = [1]
    with tempfile.TemporaryDirectory() as name:
        out = given.out or Path(name)
        runs = Runs((Path(name) if given.quick else RESULTS) / "fashion.jsonl", {"data": "fashion"})
        groups = {group: runs_of(GROUPS[group], given) for group in given.groups}
        for wanted in groups.values():
            for run in wanted:
                learn(runs, run, given, out)
        if not given.learn:
            write("fashion", replaced("fashion", cases(runs, groups)), quick=given.quick)


if __name__ == "__main__":
    sys.exit(main())
