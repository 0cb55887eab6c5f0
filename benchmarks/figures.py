"""Writes the tables of figures in README and docs from the committed results: `python benchmarks/figures.py`."""

import json
import string
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
START, END = "<!-- figures -->", "<!-- end figures -->"


KERNELS = "docs/kernels.md"  # has the results of its own benchmark, README all others
PAGES = ("README.md", KERNELS)
LETTERS = string.ascii_lowercase  # of the machines, in the last column


def table(page: str) -> str:
    """The table of a page, a row for each case of each result file."""
    results = [
        json.loads(path.read_text())
        for path in sorted((ROOT / "benchmarks" / "results").glob("*.json"))
        if (path.stem == "kernels") == (page == KERNELS)
    ]
    places = sorted({_place(result) for result in results})
    lines = ["| question | measured | bar | unit | on |", "| --- | --- | --- | --- | --- |"]
    for result in results:
        letter = LETTERS[places.index(_place(result))]
        lines += [f"| {c['case']} | {c['value']:g} | {_bar(c)} | {c['unit']} | {letter} |" for c in result["cases"]]
    told = "; ".join(f"{letter}: {place}" for letter, place in zip(LETTERS, places, strict=False))
    return "\n".join([f"Measured on {told}; `make bench` measures again.", "", *lines])


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
    return f"{before}{START}\n{table(page)}\n{END}{after}"


if __name__ == "__main__":
    for page in PAGES:
        (ROOT / page).write_text(updated(page))
