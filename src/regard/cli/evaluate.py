"""`regard evaluate`."""

import itertools
import json
from typing import Any

import click

from regard.cli.command import FILE, Command, Flag, Suggested, Words
from regard.cli.shared import COUNT, SENTENCES, model_flags, open_for, search_flags, search_of

TOKENIZERS = ("13a", "intl", "zh", "ja-mecab", "ko-mecab", "char", "flores101", "flores200", "none")


def run(
    files: tuple[str, ...],
    parallel: tuple[str, str] | None,
    source_field: str,
    target_field: str,
    format: str | None,
    delimiter: str | None,
    skip_bad_rows: bool,
    first: int | None,
    model: str | None,
    threads: int | None,
    device: str,
    batch_size: int,
    tokenize: str,
    as_json: bool,
    **how: object,
) -> None:
    """Translate the sources of pairs and compare with their targets: BLEU, chrF, by length, and speed."""
    from regard.data.rows import columns_of, read_pairs

    if bool(files) == bool(parallel):
        raise click.UsageError("give files of pairs, or --parallel SOURCES TARGETS")
    search = search_of(how)
    fields = (source_field, target_field)
    reader = read_pairs(
        files, parallel=parallel or None, columns=columns_of(fields), fields=fields, format=format,
        delimiter=delimiter, skip_bad_rows=skip_bad_rows,
    )  # fmt: skip
    pairs = list(itertools.islice(reader, first))
    for file, note in reader.notes.items():
        click.echo(f"{file}: {note}", err=True)
    translator = open_for("evaluate", model, threads, device)
    found = translator.evaluate(pairs, search=search, batch_size=batch_size, tokenize=tokenize).to_plain()
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
        *(f"sacrebleu {name}: {signature}" for name, signature in found["signatures"].items()),
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
            about="Pairs: TSV, CSV, JSONL, JSON, Parquet; .gz or .zst; - for standard input.",
            nargs=-1,
            type=FILE,
            metavar="[FILE]...",
        ),
        Flag(["--parallel"], nargs=2, metavar="SOURCES TARGETS", help="Two files instead, a sentence a line."),
        Flag(
            ["--source-field"],
            default="source",
            show_default=True,
            help="Field of the source, or number of its column.",
        ),
        Flag(
            ["--target-field"],
            default="target",
            show_default=True,
            help="Field of the target, or number of its column.",
        ),
        Flag(
            ["--format"],
            metavar="NAME",
            help="tsv, csv, jsonl, json or parquet; by default as the files' names end.",
        ),
        Flag(["--delimiter"], metavar="C", help="Character between the columns of CSV; by default as the rows agree."),
        Flag(["--skip-bad-rows"], is_flag=True, help="Count and skip bad rows instead of stopping."),
        Flag(["--first"], type=COUNT, help="Only the first N pairs."),
        *model_flags(),
        *search_flags(),
        Flag(["--batch-size"], type=SENTENCES, default=32, show_default=True, help="Sentences that run together."),
        Flag(
            ["--tokenize"],
            type=Suggested(*TOKENIZERS),
            metavar="NAME",
            default=TOKENIZERS[0],
            show_default=True,
            help=f"How BLEU finds words, by sacrebleu: {', '.join(TOKENIZERS[:-1])} or {TOKENIZERS[-1]}.",
        ),
        Flag(["--json", "as_json"], is_flag=True, help="Print JSON instead of a table."),
    ],
    examples=[
        "regard evaluate test.tsv --model runs/en-it",
        "regard evaluate test.tsv --model runs/en-ja --tokenize ja-mecab",
    ],
)
