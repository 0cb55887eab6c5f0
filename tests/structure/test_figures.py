"""Every figure in the tables of docs stands in the committed results, with its unit and machine."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
RESULTS = [json.loads(path.read_text()) for path in sorted((ROOT / "benchmarks" / "results").glob("*/*.json"))]
AGAIN = "run: python benchmarks/figures.py"


def block(page: str) -> tuple[str, list[list[str]]]:
    """The line above the table of a page, and the cells of its rows below the head."""
    text = (ROOT / page).read_text(encoding="utf-8")
    said, _, table = text.partition("<!-- figures -->\n")[2].partition("\n<!-- end figures -->")[0].partition("\n\n")
    rows = [[cell.strip() for cell in line.strip("|").split(" | ")] for line in table.splitlines()]
    return said, rows[2:]


def machines(said: str) -> list[tuple[str, int, str]]:
    """Processor, cores and version of torch of each column of a table."""
    found = []
    for one in said.removeprefix("Measured on ").partition("; `make")[0].split("; "):
        processor, cores, torch = one[3:].rsplit(", ", 2)
        found.append((processor, int(cores.split()[0]), torch.removeprefix("torch ")))
    return found


def measured(question: str, unit: str, machine: tuple[str, int, str]) -> list[dict[str, Any]]:
    return [
        case
        for result in RESULTS
        if (result["processor"], result["cores"], result["torch"]) == machine
        for case in result["cases"]
        if (case["case"], case["unit"]) == (question, unit)
    ]


def figures(page: str) -> Iterator[tuple[str, str, tuple[str, int, str], str, str]]:
    """Question, unit, machine, value and bar of each figure of a table."""
    said, rows = block(page)
    for question, *values, bars, units in rows:
        for machine, value in zip(machines(said), values, strict=True):
            if value:
                for one in zip(units.split(", "), value.split(", "), bars.split(", "), strict=True):
                    yield question, one[0], machine, one[1], one[2]


@pytest.mark.parametrize("page", ["docs/figures.md", "docs/kernels.md"])
def test_each_figure_was_measured_in_its_unit(page: str) -> None:
    wrong = []
    for question, unit, machine, value, bar in figures(page):
        [case] = measured(question, unit, machine)
        words = [] if case["bar"] is None else ["at least"] * bool(case.get("at_least")) + [f"{case['bar']:g}"]
        if f"{case['value']:g}" != value or (" ".join(words) or "none") != bar:
            wrong.append(f"{question}: {value} {unit}, bar {bar}; measured {case['value']} {case['unit']}, {words}")
    assert not wrong, AGAIN


def test_each_result_is_on_a_page() -> None:
    shown = {figure[:3] for page in ("docs/figures.md", "docs/kernels.md") for figure in figures(page)}
    shown |= {(case["case"], case["unit"], MACHINE_OF_GUIDE) for case in guide_cases()}
    expected = {
        (case["case"], case["unit"], (result["processor"], result["cores"], result["torch"]))
        for result in RESULTS
        for case in result["cases"]
    }
    assert sorted(expected - shown) == [], AGAIN


GUIDE = json.loads((ROOT / "benchmarks" / "results" / "intel-xeon" / "fine_tuning.json").read_text())
MACHINE_OF_GUIDE = (GUIDE["processor"], GUIDE["cores"], GUIDE["torch"])


def guide_cases() -> list[dict[str, Any]]:
    cases: list[dict[str, Any]] = GUIDE["cases"]
    return cases


def test_the_guide_to_training_was_measured() -> None:
    said, rows = block("docs/training.md")
    assert f"Measured on {GUIDE['processor']}, torch {GUIDE['torch']}." in said
    assert len(rows) == len(guide_cases()) / 2
    for start, size, pairs, steps, minutes, bleu, chrf in rows:
        for unit, value in (("BLEU", bleu), ("chrF", chrf)):
            [case] = [
                case
                for case in guide_cases()
                if [case["start"], case["size"], f"{case['pairs']:,}", f"{case['steps']:,}"]
                == [start, size, pairs, steps]
                and case["unit"] == unit
            ]
            assert (f"{case['value']:g}", f"{case['minutes']:g}") == (value, minutes), AGAIN
