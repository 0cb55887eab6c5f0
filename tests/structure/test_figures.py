"""Every figure in the tables of the README and of docs stands in the committed results, with its unit and machine.

The tables are read back from the pages and looked up in the JSON files, without the code that writes them.
"""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

ROOT = Path(__file__).parents[2]
RESULTS = [json.loads(path.read_text()) for path in sorted((ROOT / "benchmarks" / "results").glob("*/*.json"))]
AGAIN = "run: python benchmarks/figures.py"
GUIDE = json.loads((ROOT / "benchmarks" / "results" / "intel-xeon" / "fine_tuning.json").read_text())
JSON_ONLY = "linear map, "
HEADLINES = {  # case and unit of each row of the README
    "attention, 4,096 tokens, forward and backward, float32": (
        "dense, 4,096 tokens, forward and backward: SDPA", "times as fast"),
    "the same in bfloat16": ("bfloat16, dense, 4,096 tokens, forward and backward: SDPA", "times as fast"),
    "causal window of 256 over 4,096 tokens, forward": (
        "causal window of 256 over 4,096 tokens, forward: compiled FlexAttention", "times as fast"),
    "entmax 1.5, 512 tokens, forward and backward": (
        "entmax-1.5, 8 heads x 512 tokens, forward and backward: entmax", "times as fast"),
    "one query, 64 keys": ("one query, 64 keys: SDPA", "times as fast"),
    "BERT-base, 8 x 128 tokens": ("BERT-base, 8 x 128 tokens, float32: transformers / regard", "times"),
    "GPT-2, one text, 64 new tokens": (
        "GPT-2 124M, greedy, one text, 64 tokens after 32, float32: transformers / regard", "times"),
    "translating in int8, beam 4, batch 32": (
        "int8, base, random weights, beam 4, batch 32, against CTranslate2 int8", "x its rate"),
    "training a translator, tokens a second, bf16": (
        "target tokens trained on in a second, against Seq2SeqTrainer's, descriptions-en-it", "x its rate"),
    "its BLEU after 45 minutes": (
        "BLEU above Seq2SeqTrainer's after 45 minutes each, first 600 rows of test, descriptions-en-it", "BLEU"),
}  # fmt: skip


class Figure(NamedTuple):
    """A value in a table, with the machine that it was measured on."""

    case: str
    unit: str
    machine: str
    value: str
    target: str


def blocks(page: str) -> dict[str, str]:
    """The text between the markers of a page, by their name."""
    text = (ROOT / page).read_text(encoding="utf-8")
    return dict(re.findall(r"<!-- figures: ([\w-]+) -->\n(.*?)\n<!-- end figures -->", text, re.DOTALL))


def table(text: str) -> tuple[list[str], list[list[str]]]:
    """The cells of a table's head and of its rows."""
    lines = [line for line in text.splitlines() if line.startswith("|")]
    head, _, *rows = [[cell.strip() for cell in line[1:-1].split("|")] for line in lines]
    return head, rows


def figures(text: str) -> Iterator[Figure]:
    """The figures of a table whose columns are machines, or units where the machine stands above."""
    head, rows = table(text)
    above = re.match(r"Measured on (.*)\.\n", text)
    for cells in rows:
        row = dict(zip(head, cells, strict=True))
        case, unit, target = row.pop("case"), row.pop("unit", ""), row.pop("target", "")
        for column, value in row.items():
            if value and above:
                own = re.search(rf"(?:^|, ){re.escape(column)} ([≤≥]? ?[\d.]+)(?:, |$)", target)
                yield Figure(case, column, above[1], value, own[1] if own else "")
            elif value:
                yield Figure(case, unit, column, value, target)


def machine(result: dict[str, Any]) -> str:
    return f"{result['processor']}, {result['cores']} core{'s' * (result['cores'] > 1)}, torch {result['torch']}"


def measured(case: str, unit: str, on: str) -> list[dict[str, Any]]:
    rows = [row for result in RESULTS if machine(result) == on for row in result["cases"]]
    return [row for row in rows if (row["case"], row["unit"]) == (case, unit)]


TABLES = {name: text for name, text in blocks("docs/benchmarks.md").items() if name != "json-only"}


@pytest.mark.parametrize("name", TABLES)
def test_each_figure_was_measured_in_its_unit(name: str) -> None:
    wrong = []
    for figure in figures(TABLES[name]):
        [case] = measured(figure.case, figure.unit, figure.machine)
        sign = "≥ " if case.get("at_least") else "≤ " * bool(case["bar"])
        target = "" if case["bar"] is None else f"{sign}{case['bar']:g}"
        if (f"{case['value']:g}", target) != (figure.value, figure.target):
            wrong.append(f"{figure}; measured {case['value']} {case['unit']}, {target}")
    assert not wrong, AGAIN


def test_each_result_is_on_a_page_or_named_as_in_the_json_only() -> None:
    shown = {figure[:3] for text in TABLES.values() for figure in figures(text)}
    shown |= {(case["case"], case["unit"], machine(GUIDE)) for case in GUIDE["cases"]}
    expected = {(case["case"], case["unit"], machine(result)) for result in RESULTS for case in result["cases"]}
    left = sorted(expected - shown)
    unshown = [case for case in left if not case[0].startswith(JSON_ONLY)]
    assert unshown == [], f"give them a table in benchmarks/figures.py and a place in docs/benchmarks.md, then {AGAIN}"
    assert blocks("docs/benchmarks.md")["json-only"].startswith(f"{len(left)} cases `{JSON_ONLY}"), AGAIN


def test_each_table_has_figures() -> None:
    assert [name for name, text in TABLES.items() if not list(figures(text))] == []


def test_each_figure_of_the_readme_was_measured() -> None:
    (_, _, *machines), rows = table(blocks("README.md")["headlines"])
    assert len(rows) == 10
    assert {row[0] for row in rows} == set(HEADLINES)
    for what, _, *values in rows:
        for on, value in zip(machines, values, strict=True):
            cases = measured(*HEADLINES[what], on)
            assert len(cases) == bool(value), AGAIN
            if value:
                number, sign = re.fullmatch(r"\+?([\d.]+)(x| BLEU)", value).groups()  # type: ignore[union-attr]
                assert abs(float(number) - cases[0]["value"]) <= 0.0051, AGAIN
                assert (sign == " BLEU") == (cases[0]["unit"] == "BLEU")


def test_the_guide_to_training_was_measured() -> None:
    text = blocks("docs/training.md")["fine-tuning"]
    _, rows = table(text)
    assert text.startswith(f"Measured on {machine(GUIDE)}.")
    assert len(rows) == len(GUIDE["cases"]) / 2
    for start, size, pairs, steps, minutes, bleu, chrf in rows:
        for unit, value in (("BLEU", bleu), ("chrF", chrf)):
            [case] = [
                case
                for case in GUIDE["cases"]
                if [case["start"], case["size"], f"{case['pairs']:,}", f"{case['steps']:,}"]
                == [start, size, pairs, steps]
                and case["unit"] == unit
            ]
            assert (f"{case['value']:g}", f"{case['minutes']:g}") == (value, minutes), AGAIN
