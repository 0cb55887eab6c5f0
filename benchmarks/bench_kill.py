"""Does a training run that is killed again and again end with the weights of one that never was?

Ten times each architecture's process is killed (SIGKILL): at a random moment, while a checkpoint is being written, or
while an evaluation is being recorded; then it is started again. Then what a damaged file and a full disk do.
"""

import json
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import safetensors.torch
import torch
from common import replaced, write
from translation import corpus, options, read, texts

KILLS, STEPS, ROWS = 10, 1000, 4000
SIZES = {
    "transformer": {"embed_dim": 64, "ffn_dim": 128, "encoder_layers": 2, "decoder_layers": 2},
    "rnn": {"embed_dim": 32, "hidden_dim": 48, "align_dim": 32},
    "luong": {"embed_dim": 32, "hidden_dim": 48, "num_layers": 1},
    "convs2s": {"embed_dim": 48, "hidden_dim": 48, "encoder_layers": 2, "decoder_layers": 2},
    "pointer-generator": {"embed_dim": 24, "hidden_dim": 24},
    "text-classifier": {"embed_dim": 24, "hidden_dim": 24},
}
JOBS = {"pointer-generator": "summarize", "text-classifier": "classify"}  # of the others: translate
LABELS = 3  # of a text: the number of its target's words, modulo this
PATIENCE = 1800  # seconds until a run counts as stuck


class Run(NamedTuple):
    """A run that can be started any number of times."""

    model: str
    records: Path
    steps: int
    threads: int
    checkpoint_every: int | None = None  # the default

    def start(self, folder: Path, *, largest_file: int | None = None) -> "subprocess.Popen[str]":
        """A process that begins the run or goes on with it; none of its files may grow beyond `largest_file` bytes."""
        settings = {**SIZES[self.model], "dropout": 0.2}
        command = [sys.executable, "-m", "regard", "train", str(self.records), "--out", str(folder)]
        command += ["--task", JOBS.get(self.model, "translate"), "--model", self.model]
        command += ["--steps", str(self.steps), "--threads", str(self.threads)]
        command += [] if self.checkpoint_every is None else ["--checkpoint-every", str(self.checkpoint_every)]
        command += ["--vocab-size", "500", "--batch-tokens", "512", "--held-out", "100"]
        command += [word for name, x in settings.items() for word in (f"--model.{name}", str(x))]

        def limit() -> None:
            if largest_file is not None:
                resource.setrlimit(resource.RLIMIT_FSIZE, (largest_file, largest_file))

        log = folder.with_suffix(".log").open("a+")
        return subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT, text=True, preexec_fn=limit)

    def finish(self, folder: Path) -> float:
        """Seconds until the run has ended by itself."""
        start = time.perf_counter()
        code = self.start(folder).wait(PATIENCE)
        if code:
            raise SystemExit(f"{self.model} ended with {code}:\n{folder.with_suffix('.log').read_text()[-2000:]}")
        return time.perf_counter() - start


def kill_at(process: "subprocess.Popen[str]", ready: Callable[[], bool]) -> bool:
    """Kill a process when `ready` says so; False if it ended by itself before."""
    end = time.monotonic() + PATIENCE
    while time.monotonic() < end:
        if process.poll() is not None:
            if process.returncode:
                raise SystemExit(f"a run ended with {process.returncode}")
            return False
        if ready():
            process.send_signal(signal.SIGKILL)
            return process.wait() == -signal.SIGKILL
        time.sleep(0.0005)
    raise SystemExit(f"a run took more than {PATIENCE} s")


def after(seconds: float) -> Callable[[], bool]:
    """Ready so many seconds from now."""
    end = time.monotonic() + seconds
    return lambda: time.monotonic() >= end


def writing(folder: Path) -> Callable[[], bool]:
    """Ready while a checkpoint is being written."""
    return lambda: any((folder / "checkpoints").glob(".writing-*"))


def evaluating(folder: Path) -> Callable[[], bool]:
    """Ready when an evaluation more than now has been recorded, while its model is being kept."""
    path = folder / "metrics.jsonl"
    before = records(path) if path.exists() else 0
    return lambda: path.exists() and records(path) > before


def records(path: Path) -> int:
    return path.read_bytes().count(b"\n")


def outcome(folder: Path) -> dict[str, Any]:
    """All that must be equal: the weights, those of the last checkpoint with the optimizer's state, and the losses."""
    last = max((folder / "checkpoints").glob("step-*"))
    files = (folder / "model.safetensors", last / "model.safetensors", last / "optimizer.safetensors")
    tensors = [safetensors.torch.load_file(file) for file in files]
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    losses = [(line["step"], line["loss"], line["valid_loss"], line.get("tokens", line.get("texts"))) for line in lines]
    return {"step": last.name, "tensors": tensors, "losses": losses}


def differing(found: dict[str, Any], expected: dict[str, Any]) -> int:
    """How many tensors, or records of losses, are not bit for bit the same."""
    wrong = int(found["step"] != expected["step"])
    for mine, right in zip(found["tensors"], expected["tensors"], strict=True):
        wrong += len(mine.keys() ^ right.keys())
        wrong += sum(not torch.equal(mine[name], x) for name, x in right.items() if name in mine)
    # The loss since the last evaluation is of fewer steps after a restart: it is only shown.
    told = [[(step, held_out, tokens) for step, _, held_out, tokens in one["losses"]] for one in (found, expected)]
    return wrong + (told[0] != told[1])


def killed(run: Run, folder: Path, expected: dict[str, Any], seconds: float, *, kills: int) -> dict[str, Any]:
    """Kill a run, go on with it, and so on; one that ends before it was killed often enough is begun anew."""
    choice, hits, wrong, ended, sittings = random.Random(run.model), Counter[str](), 0, 0, 0
    while True:
        at = folder / f"{run.model}-{ended}"
        process, sittings = run.start(at), sittings + 1
        ready, kind = lambda: False, ""
        if hits.total() < kills:
            kind = ("random moment", "checkpoint", "random moment", "evaluation")[hits.total() % 4]
            moments = {"checkpoint": writing(at), "evaluation": evaluating(at)}
            ready = moments.get(kind) or after(choice.uniform(0.1, 0.4) * seconds)
        if kill_at(process, ready):
            hits[kind] += 1
            continue
        ended += 1
        wrong += differing(outcome(at), expected)
        if hits.total() >= kills:
            return {"value": wrong, "kills": dict(hits), "runs_ended": ended, "sittings": sittings}


def damaged(run: Run, folder: Path, expected: dict[str, Any]) -> dict[str, str]:
    """What becomes of a run with a damaged file or a full disk: "same weights", or what is wrong."""
    begun = folder / "begun"
    process = run.start(begun)
    if not kill_at(process, lambda: len(list((begun / "checkpoints").glob("step-*"))) >= 2):
        raise SystemExit("the run ended before its second checkpoint; give more steps")
    told: dict[str, str] = {}

    def resumed(name: str, harm: Callable[[Path], str]) -> None:
        at = folder / name.replace(" ", "-")
        shutil.copytree(begun, at)
        said = harm(at)
        run.finish(at)
        wrong = differing(outcome(at), expected)
        told[name] = said or ("same weights" if not wrong else f"{wrong} tensors or losses differ")

    def truncate(path: Path) -> str:
        os.truncate(path, path.stat().st_size // 2)
        return ""

    def newest(at: Path) -> Path:
        return max((at / "checkpoints").glob("step-*"))

    def full_disk(at: Path) -> str:
        before = sorted(path.name for path in (at / "checkpoints").glob("step-*"))
        size = (newest(at) / "model.safetensors").stat().st_size
        # Room for weights, and not for the optimizer's state, which is twice as large.
        code = run.start(at, largest_file=size * 3 // 2).wait(PATIENCE)
        left = sorted(path.name for path in (at / "checkpoints").glob("step-*"))
        if left != before:
            return f"checkpoints were {before}, are {left}"
        return wrong_end(code, at.with_suffix(".log").read_text(), "cannot be written", "no space", "too large")

    for part in ("model.safetensors", "optimizer.safetensors", "state.json"):
        resumed(f"truncated {part} of the newest checkpoint", lambda at, part=part: truncate(newest(at) / part))
    resumed("truncated tokenizer of the prepared data", lambda at: truncate(at / "data" / "tokenizer.json"))
    resumed("full disk", full_disk)
    return {**told, "tokenizer of a model": broken_tokenizer(folder / run.model, folder / "damaged")}


def broken_tokenizer(run_folder: Path, at: Path) -> str:
    """What `regard translate` says of a model whose tokenizer is damaged."""
    shutil.copytree(run_folder, at)
    path = at / "tokenizer.json"
    path.write_bytes(path.read_bytes()[:1000] + b"\xff\x00" + path.read_bytes()[1002:])
    command = [sys.executable, "-m", "regard", "translate", "ba", "--model", str(at)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return wrong_end(done.returncode, done.stderr, "tokenizer.json") or "clear error"


def wrong_end(code: int, said: str, *marks: str) -> str:
    """What is wrong with how a command ended, if anything is."""
    clear = code == 1 and "Traceback" not in said and any(mark in said for mark in marks)
    return "" if clear else f"exit code {code}: {said[-300:]}"


def main() -> None:
    parser = options(__doc__)
    parser.add_argument("--models", nargs="+", choices=SIZES, default=list(SIZES))
    parser.add_argument("--kills", type=int, default=KILLS)
    parser.add_argument("--steps", type=int, default=STEPS)
    given = read(parser)
    os.environ["OMP_NUM_THREADS"] = str(given.threads)
    if given.quick:
        given.models, given.kills, given.steps = ["transformer"], 3, 60
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        pairs, labeled = folder / "pairs.tsv", folder / "labeled.tsv"
        rows = texts(corpus(given, folder).train, ROWS)
        pairs.write_text("".join(f"{source}\t{target}\n" for source, target in rows), encoding="utf-8")
        labels = (f"{source}\t{len(target.split()) % LABELS}\n" for source, target in rows)
        labeled.write_text("".join(labels), encoding="utf-8")
        found = (
            case
            for model in given.models
            for case in cases_of(model, given, labeled if JOBS.get(model) == "classify" else pairs, folder)
        )
        write("kill", found if given.quick else replaced("kill", found), quick=given.quick)


def cases_of(model: str, given: Any, records: Path, folder: Path) -> Iterator[dict[str, Any]]:
    """An architecture's kills; and, of the Transformer, what becomes of damaged files."""
    run = Run(model, records, given.steps, given.threads, 10 if given.quick else None)
    seconds = run.finish(folder / model)
    expected = outcome(folder / model)
    found = killed(run, folder, expected, seconds, kills=given.kills)
    case = f"tensors and losses that differ after {sum(found['kills'].values())} kills, {model}"
    shared = {"unit": "tensors or losses", "bar": 0, "steps": given.steps, "seconds_unkilled": round(seconds, 1)}
    yield {"case": case, **found, **shared, "threads": given.threads}
    if model == "transformer":
        told = damaged(run, folder, expected)
        bad = sum(end not in ("same weights", "clear error") for end in told.values())
        case = "damaged files and full disks that end otherwise than with the same weights or a clear error"
        yield {"case": case, "unit": f"of {len(told)}", "value": bad, "bar": 0, "ends": told}


if __name__ == "__main__":
    main()
