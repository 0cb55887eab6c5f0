"""Writes the tables of figures in docs from the committed results: `python benchmarks/figures.py`."""

import json
import string
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
START, END = "<!-- figures -->", "<!-- end figures -->"

ALL, KERNELS, TRAINING = "docs/figures.md", "docs/kernels.md", "docs/training.md"
PAGE_OF = {"kernels": KERNELS, "fine_tuning": TRAINING}  # by result file; ALL has the others
PAGES = (ALL, KERNELS, TRAINING)
LETTERS = string.ascii_lowercase  # of the machines


def results(page: str) -> list[tuple[str, dict[str, Any]]]:
    """The result files of a page, by name."""
    paths = sorted((ROOT / "benchmarks" / "results").glob("*/*.json"), key=lambda path: (path.stem, path))
    return [(path.stem, json.loads(path.read_text())) for path in paths if PAGE_OF.get(path.stem, ALL) == page]


def table(page: str) -> str:
    """The table of a page: a row for each case of each result file, with a column for each machine.

    A case that was measured in several units has its values, bars and units in one order, with commas between.
    """
    found = results(page)
    places = sorted({_place(result) for _, result in found})
    rows: dict[tuple[str, str], dict[str, dict[str, dict[str, Any]]]] = {}  # cases by question, unit and place
    for name, result in found:
        for case in result["cases"]:
            units = rows.setdefault((name, case["case"]), {})
            units.setdefault(case["unit"], {})[_place(result)] = case
    letters = LETTERS[: len(places)]
    lines = [f"| question | {' | '.join(letters)} | bar | unit |", "| --- " * (len(places) + 3) + "|"]
    for (_, question), units in rows.items():
        values = [
            ", ".join(f"{cases[place]['value']:g}" for cases in units.values() if place in cases) for place in places
        ]
        bars = ", ".join(_bar(next(iter(cases.values()))) for cases in units.values())
        lines.append(f"| {question} | {' | '.join(values)} | {bars} | {', '.join(units)} |")
    told = "; ".join(f"{letter}: {place}" for letter, place in zip(letters, places, strict=True))
    return "\n".join([f"Measured on {told}; `make bench` measures again.", "", *lines])


def guide(page: str) -> str:
    """What to expect of a training run: a row for each, by what it starts from, pairs and minutes."""
    lines = ["| from | size | pairs | steps | minutes of one core | BLEU | chrF |", "| --- " * 7 + "|"]
    [(_, result)] = results(page)
    scores: dict[str, dict[str, dict[str, Any]]] = {}
    for case in result["cases"]:
        scores.setdefault(case["case"], {})[case["unit"]] = case
    for units in scores.values():
        run = units["BLEU"]
        lines.append(
            f"| {run['start']} | {run['size']} | {run['pairs']:,} | {run['steps']:,} | {run['minutes']:g} | "
            f"{run['value']:g} | {units['chrF']['value']:g} |"
        )
    return "\n".join([f"Measured on {result['processor']}, torch {result['torch']}.", "", *lines])


def _place(result: dict[str, Any]) -> str:
    return f"{result['processor']}, {result['cores']} cores, torch {result['torch']}"


def _bar(case: dict[str, Any]) -> str:
    if case["bar"] is None:
        return "none"
    return f"{'at least ' if case.get('at_least') else ''}{case['bar']:g}"


def updated(page: str) -> str:
    """A page with the table between its markers."""
    before, _, rest = (ROOT / page).read_text().partition(START)
    _, _, after = rest.partition(END)
    return f"{before}{START}\n{guide(page) if page == TRAINING else table(page)}\n{END}{after}"


if __name__ == "__main__":
    for page in PAGES:
        (ROOT / page).write_text(updated(page))
