"""`regard evaluate`."""

import itertools
import json

import click

from regard.cli.command import FILE, Argument, Command, Option, Suggested
from regard.cli.output import print_result
from regard.cli.shared import (
    COUNT,
    SENTENCES,
    accepted,
    dtype_flag,
    length_flags,
    model_flags,
    open_for,
    prefix_flags,
    search_flags,
    search_if_said,
)

TOKENIZERS = ("13a", "intl", "zh", "ja-mecab", "ko-mecab", "char", "flores101", "flores200", "none")


def run(
    files: tuple[str, ...],
    parallel: tuple[str, str] | None,
    fields: tuple[str, ...],
    source_field: str | None,
    target_field: str | None,
    format: str | None,
    delimiter: str | None,
    skip_bad_rows: bool,
    first: int | None,
    model: str | None,
    threads: int | None,
    device: str,
    dtype: str | None,
    prefix: str | None,
    task: str | None,
    max_length: int | None,
    whole: bool | None,
    batch_size: int,
    tokenize: str | None,
    as_json: bool,
    **how: object,
) -> None:
    """Run a model on records with reference answers, and measure its quality and speed."""
    from regard.tasks.registry import task_class

    if bool(files) == bool(parallel):
        raise click.UsageError("give files of records, or --parallel SOURCES TARGETS")
    options = {"search": search_if_said(how), "prefix": prefix, "task": task, "tokenize": tokenize}
    options |= {"max_length": max_length, "whole": whole}
    runner = open_for("evaluate", model, threads, device, dtype)
    settings = accepted(runner, "evaluate", {name: x for name, x in options.items() if x is not None})
    names = dict(field_of(field) for field in fields)
    names |= {part: x for part, x in (("source", source_field), ("target", target_field)) if x is not None}
    reader = task_class(runner.job).read(
        files, parallel=parallel or None, fields=names, format=format, delimiter=delimiter, skip_bad_rows=skip_bad_rows
    )
    records = list(itertools.islice(reader, first))
    for file, note in reader.notes.items():
        click.echo(f"{file}: {note}", err=True)
    evaluation = runner.evaluate(records, batch_size=batch_size, **settings)
    skipped = dict(reader.skipped)
    if as_json:
        click.echo(json.dumps({**evaluation.to_plain(), "skipped": skipped}, indent=2, ensure_ascii=False))
        return
    print_result(evaluation)
    for reason, count in skipped.items():
        click.echo(f"skipped: {count:,} rows, {reason}")


def field_of(text: str) -> tuple[str, str]:
    """Part of a record and the field that holds it, from "part=field"."""
    part, equals, field = text.partition("=")
    if not (part and equals and field):
        raise click.UsageError(f"--field {text}: expected PART=FIELD, such as source=en")
    return part, field


command = Command(
    "evaluate",
    run,
    params=[
        Argument(
            "files",
            about="Records: TSV, CSV, JSONL, JSON, Parquet; .gz or .zst; - for standard input.",
            nargs=-1,
            type=FILE,
            metavar="[FILE]...",
        ),
        Option(
            ["--parallel"],
            type=FILE,
            nargs=2,
            metavar="SOURCES TARGETS",
            help="Two parallel files instead, one sentence per line.",
        ),
        Option(
            ["--field", "fields"],
            multiple=True,
            metavar="PART=FIELD",
            help="Field or column number that holds a part of each record, such as source=en.",
        ),
        Option(["--source-field"], metavar="FIELD", help="Same as --field source=FIELD."),
        Option(["--target-field"], metavar="FIELD", help="Same as --field target=FIELD."),
        Option(
            ["--format"],
            metavar="NAME",
            help="tsv, csv, jsonl, json or parquet; by default, from the file names.",
        ),
        Option(["--delimiter"], metavar="C", help="Column delimiter of CSV; detected by default."),
        Option(["--skip-bad-rows"], is_flag=True, help="Count and skip bad rows instead of stopping."),
        Option(["--first"], type=COUNT, help="Evaluate the first N records only."),
        *model_flags(),
        dtype_flag(),
        *prefix_flags(),
        *search_flags(),
        *length_flags(),
        Option(["--batch-size"], type=SENTENCES, default=32, show_default=True, help="Texts per batch."),
        Option(
            ["--tokenize"],
            type=Suggested(*TOKENIZERS),
            metavar="NAME",
            help=f"Tokenizer of BLEU, by its name in sacrebleu: {', '.join(TOKENIZERS[:-1])} or {TOKENIZERS[-1]}.  "
            f"[default: {TOKENIZERS[0]}]",
        ),
        Option(["--json", "as_json"], is_flag=True, help="Print JSON instead of a table."),
    ],
    examples=[
        "regard evaluate test.tsv --model runs/en-it",
        "regard evaluate test.tsv --model runs/en-ja --tokenize ja-mecab",
    ],
)
