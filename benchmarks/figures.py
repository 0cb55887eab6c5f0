"""Writes the tables of figures in README and docs from the committed results: `python benchmarks/figures.py`."""

import json
import string
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
START, END = "<!-- figures -->", "<!-- end figures -->"


KERNELS = "docs/kernels.md"  # has the results of its own benchmark, README all others
PAGES = ("README.md", KERNELS)
LETTERS = string.ascii_lowercase  # of the machines


def table(page: str) -> str:
    """The table of a page: a row for each case of each result file, with a column for each machine."""
    results = [
        (path.stem, json.loads(path.read_text()))
        for path in sorted((ROOT / "benchmarks" / "results").glob("*/*.json"), key=lambda path: (path.stem, path))
        if (path.stem == "kernels") == (page == KERNELS)
    ]
    places = sorted({_place(result) for _, result in results})
    letters = LETTERS[: len(places)]
    rows: dict[tuple[str, str], tuple[dict[str, Any], list[str]]] = {}  # a case, and its value on each machine
    for name, result in results:
        for case in result["cases"]:
            _, values = rows.setdefault((name, case["case"]), (case, [""] * len(places)))
            values[places.index(_place(result))] = f"{case['value']:g}"
    lines = [f"| question | {' | '.join(letters)} | bar | unit |", "| --- " * (len(places) + 3) + "|"]
    lines += [f"| {c['case']} | {' | '.join(values)} | {_bar(c)} | {c['unit']} |" for c, values in rows.values()]
    told = "; ".join(f"{letter}: {place}" for letter, place in zip(letters, places, strict=True))
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
