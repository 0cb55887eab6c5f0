"""`regard evaluate`."""

import itertools
import json
from typing import Any

import click

from regard.cli.command import Command, Flag, Words
from regard.cli.shared import (
    BEAM,
    COUNT,
    SENTENCES,
    model_flags,
    open_for,
    prefix_flags,
    search_flags,
    search_if_said,
)


def run(
    files: tuple[str, ...],
    parallel: tuple[str, str] | None,
    source_field: str,
    target_field: str,
    skip_bad_rows: bool,
    first: int | None,
    model: str | None,
    threads: int | None,
    prefix: str | None,
    task: str | None,
    batch_size: int,
    as_json: bool,
    **how: object,
) -> None:
    """Translate the sources of pairs and compare with their targets: BLEU, chrF, by length, and speed."""
    from regard.data.rows import columns_of, read_pairs
    from regard.decode.search import Beam

    if bool(files) == bool(parallel):
        raise click.UsageError("give files of pairs, or --parallel SOURCES TARGETS")
    search = search_if_said(how)
    fields = (source_field, target_field)
    reader = read_pairs(
        files, parallel=parallel or None, columns=columns_of(fields), fields=fields, skip_bad_rows=skip_bad_rows
    )
    pairs = list(itertools.islice(reader, first))
    translator = open_for("evaluate", model, threads)
    wished = translator.wish(task, search=search)
    search = wished.search if wished is not None else search or Beam(BEAM)
    how = {"search": search, "prefix": prefix, "task": task}
    found = translator.evaluate(pairs, **how, batch_size=batch_size).to_plain()
    found["search"] = repr(search)
    found["skipped"] = dict(reader.skipped)
    click.echo(json.dumps(found, indent=2) if as_json else _table(found))


def _table(found: dict[str, Any]) -> str:
    rows = [("words of source", "pairs", "BLEU", "chrF")]
    for bucket in found["buckets"]:
        words = f"{bucket['shortest']}+" if bucket["longest"] is None else f"{bucket['shortest']}-{bucket['longest']}"
        rows.append((words, f"{bucket['pairs']:,}", *_numbers(bucket["scores"])))
    rows.append(("all", f"{found['pairs']:,}", *_numbers(found["scores"])))
    lines = [f"{a:<16}{b:>8}{c:>8}{d:>8}" for a, b, c, d in rows]
    lines += [
        "",
        f"{found['exact']:.1%} exactly as the reference; {found['unfinished']:,} cut off at the greatest length",
        f"{found['pairs_per_second']:,.1f} pairs a second, {found['tokens_per_second']:,.0f} tokens a second",
        f"{found['seconds']:,.1f} s with {found['search']}",
    ]
    lines += [f"skipped: {count:,} rows, {reason}" for reason, count in found["skipped"].items()]
    return "\n".join(lines)


def _numbers(scores: dict[str, float]) -> tuple[str, str]:
    return f"{scores['bleu']:.1f}", f"{scores['chrf']:.1f}"


command = Command(
    "evaluate",
    run,
    params=[
        Words(
            "files",
            about="Pairs: TSV, JSONL, Parquet; .gz or .zst; - for standard input.",
            nargs=-1,
            metavar="[FILE]...",
        ),
        Flag(["--parallel"], nargs=2, metavar="SOURCES TARGETS", help="Two files instead, a sentence a line."),
        Flag(["--source-field"], default="source", show_default=True, help="Field or column of the source."),
        Flag(["--target-field"], default="target", show_default=True, help="Field or column of the target."),
        Flag(["--skip-bad-rows"], is_flag=True, help="Count and skip bad rows instead of stopping."),
        Flag(["--first"], type=COUNT, help="Only the first N pairs."),
        *model_flags(),
        *prefix_flags(),
        *search_flags(),
        Flag(["--batch-size"], type=SENTENCES, default=32, show_default=True, help="Sentences that run together."),
        Flag(["--json", "as_json"], is_flag=True, help="Print JSON instead of a table."),
    ],
    examples=["regard evaluate test.tsv --model runs/en-it"],
)
