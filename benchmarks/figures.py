"""Writes the tables of figures in the README and in docs from the committed results: `python benchmarks/figures.py`."""

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
BLOCK = re.compile(r"(<!-- figures: ([\w-]+) -->\n).*?(<!-- end figures -->)", re.DOTALL)
PAGES = ("README.md", "docs/benchmarks.md", "docs/training.md")


@dataclass(frozen=True)
class Table:
    """The cases of one result file whose name matches a pattern, a row each.

    Columns are machines, and there is a column for the unit; with `by_unit` columns are units, of one machine.
    """

    results: str
    cases: str = ""
    by_unit: bool = False


TABLES = {
    "dense": Table("kernels", r"(bfloat16, dense|dense|causal|heads of).*: SDPA"),
    "one-query": Table("kernels", "one query"),
    "windows": Table("kernels", "causal window of 256"),
    "patterns": Table("kernels", "BigBird|dilated|12 documents|block-sparse"),
    "biases": Table("kernels", "T5 bias|ALiBi|softcap|key lengths|sinks|grouped queries"),
    "normalizers": Table("kernels", "sparsemax|entmax"),
    "additive": Table("kernels", "additive"),
    "summaries-of-weights": Table("kernels", "every summary"),
    "machine": Table(
        "kernels", "(float32|bfloat16), dense.* matrix product|.* threads against one|causal window of 512"
    ),
    "chunked": Table("chunked"),
    "memory": Table("memory"),
    "overhead": Table("overhead"),
    "inside": Table("inside"),
    "accelerate": Table("accelerate", "BERT"),
    "models": Table("published", "BERT|GPT-2"),
    "training-step": Table("published", "training step"),
    "training-rate": Table("training"),
    "banded": Table("banded"),
    "decoding": Table("decoding"),
    "int8": Table("int8"),
    "invariance": Table("invariance"),
    "quality": Table("quality"),
    "shipped": Table("shipped", by_unit=True),
    "architectures": Table("architectures", "held-out|architectures"),
    "architectures-rate": Table("architectures", "training"),
    "lengths": Table("lengths"),
    "summarize": Table("summarize", by_unit=True),
    "classify": Table("classify", by_unit=True),
    "kill": Table("kill"),
    "lens": Table("lens"),
    "viewers": Table("viewers", by_unit=True),
    "faithful": Table("faithful", by_unit=True),
    "alignment": Table("alignment", by_unit=True),
    "recipes": Table("recipes"),
    "vision": Table("vision"),
    "speech": Table("speech", by_unit=True),
    "speech-long": Table("speech_long", by_unit=True),
    "listener": Table("listener"),
}
JSON_ONLY = Table("accelerate", "linear map")  # a hundred rows by size and type

HEADLINES = {  # what, peer -> result file, case, unit
    ("attention, 4,096 tokens, forward and backward, float32", "PyTorch's SDPA"): (
        "kernels", "dense, 4,096 tokens, forward and backward: SDPA", "times as fast"),
    ("the same in bfloat16", "PyTorch's SDPA"): (
        "kernels", "bfloat16, dense, 4,096 tokens, forward and backward: SDPA", "times as fast"),
    ("causal window of 256 over 4,096 tokens, forward", "FlexAttention, compiled"): (
        "kernels", "causal window of 256 over 4,096 tokens, forward: compiled FlexAttention", "times as fast"),
    ("entmax 1.5, 512 tokens, forward and backward", "the package `entmax`"): (
        "kernels", "entmax-1.5, 8 heads x 512 tokens, forward and backward: entmax", "times as fast"),
    ("one query, 64 keys", "PyTorch's SDPA"): ("kernels", "one query, 64 keys: SDPA", "times as fast"),
    ("BERT-base, 8 x 128 tokens", "`transformers`"): (
        "published", "BERT-base, 8 x 128 tokens, float32: transformers / regard", "times"),
    ("GPT-2, one text, 64 new tokens", "`transformers`"): (
        "published", "GPT-2 124M, greedy, one text, 64 tokens after 32, float32: transformers / regard", "times"),
    ("translating in int8, beam 4, batch 32", "CTranslate2 in int8"): (
        "int8", "int8, base, random weights, beam 4, batch 32, against CTranslate2 int8", "x its rate"),
    ("training a translator, tokens a second, bf16", "`Seq2SeqTrainer` in its faster precision"): (
        "training", "target tokens trained on in a second, against Seq2SeqTrainer's, descriptions-en-it", "x its rate"),
    ("its BLEU after 45 minutes", "`Seq2SeqTrainer` on another machine"): (
        "quality", "BLEU above Seq2SeqTrainer's after 45 minutes each, first 600 rows of test, descriptions-en-it",
        "BLEU"),
}  # fmt: skip


def results(name: str) -> list[dict[str, Any]]:
    """The result files of a benchmark, one for each machine."""
    return [json.loads(path.read_text()) for path in sorted((ROOT / "benchmarks" / "results").glob(f"*/{name}.json"))]


def table(selection: Table) -> str:
    """A Markdown table of a selection of cases."""
    rows: dict[str, dict[str, dict[str, Any]]] = {}  # a case by its name and column
    columns: dict[str, None] = {}
    for result in results(selection.results):
        for case in result["cases"]:
            if re.match(selection.cases, case["case"]):
                column = case["unit"] if selection.by_unit else machine(result)
                columns[column] = None
                rows.setdefault(case["case"], {})[column] = case
    lines = [["case", *columns, "target"] if selection.by_unit else ["case", *columns, "target", "unit"]]
    for name, cases in rows.items():
        values = [f"{cases[column]['value']:g}" if column in cases else "" for column in columns]
        if selection.by_unit:
            targets = [f"{unit} {target(case)}" for unit, case in cases.items() if case["bar"] is not None]
            lines.append([name, *values, ", ".join(targets)])
        else:
            [(bar, unit)] = {(target(case), case["unit"]) for case in cases.values()}
            lines.append([name, *values, bar, unit])
    above = f"Measured on {machine(results(selection.results)[0])}.\n\n" if selection.by_unit else ""
    return above + markdown(lines)


def fine_tuning() -> str:
    """What to expect of a training run: a row for each, by what it starts from, pairs and minutes."""
    [result] = results("fine_tuning")
    scores: dict[str, dict[str, dict[str, Any]]] = {}
    for case in result["cases"]:
        scores.setdefault(case["case"], {})[case["unit"]] = case
    lines = [["from", "size", "pairs", "steps", "minutes of one core", "BLEU", "chrF"]]
    for units in scores.values():
        run, bleu, chrf = units["BLEU"], units["BLEU"]["value"], units["chrF"]["value"]
        minutes = f"{run['minutes']:g}"
        lines.append(
            [run["start"], run["size"], f"{run['pairs']:,}", f"{run['steps']:,}", minutes, f"{bleu:g}", f"{chrf:g}"]
        )
    return f"Measured on {machine(result)}.\n\n{markdown(lines)}"


def headlines() -> str:
    """The README's figures: how many times as fast as a peer, or points of BLEU above it, on each machine."""
    columns = [machine(result) for result in results("kernels")]
    lines = [["", "beside", *columns]]
    for (what, peer), (name, case, unit) in HEADLINES.items():
        values = dict.fromkeys(columns, "")
        for result in results(name):
            for row in result["cases"]:
                if (row["case"], row["unit"]) == (case, unit):
                    values[machine(result)] = f"+{row['value']:.1f} BLEU" if unit == "BLEU" else f"{row['value']:.2f}x"
        lines.append([what, peer, *values.values()])
    return markdown(lines)


def json_only() -> str:
    cases = [case for result in results(JSON_ONLY.results) for case in result["cases"]]
    count = sum(bool(re.match(JSON_ONLY.cases, case["case"])) for case in cases)
    return f"{count} cases `{JSON_ONLY.cases}, ...` of {JSON_ONLY.results}.json stand in the JSON only."


def machine(result: dict[str, Any]) -> str:
    return f"{result['processor']}, {result['cores']} core{'s' if result['cores'] > 1 else ''}, torch {result['torch']}"


def target(case: dict[str, Any]) -> str:
    if case["bar"] is None:
        return ""
    sign = "≥ " if case.get("at_least") else "≤ " if case["bar"] else ""
    return f"{sign}{case['bar']:g}"


def markdown(lines: list[list[str]]) -> str:
    """The lines as a table, without columns in which only the head has text."""
    lines = [list(row) for row in zip(*(column for column in zip(*lines, strict=True) if any(column[1:])), strict=True)]
    head, *rows = [f"| {' | '.join(cells)} |" for cells in lines]
    return "\n".join([head, "| --- " * len(lines[0]) + "|", *rows])


def block(name: str) -> str:
    """The text between the markers of a name."""
    texts = {"headlines": headlines, "fine-tuning": fine_tuning, "json-only": json_only}
    return texts[name]() if name in texts else table(TABLES[name])


def updated(text: str) -> str:
    """A page with the tables between its markers."""
    return BLOCK.sub(lambda match: f"{match[1]}{block(match[2])}\n{match[3]}", text)


if __name__ == "__main__":
    for page in PAGES:
        path = ROOT / page
        path.write_text(updated(path.read_text()))
