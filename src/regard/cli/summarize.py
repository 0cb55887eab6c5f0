"""`regard summarize`."""

import itertools
import json
import sys
from pathlib import Path

import click

from regard.cli.command import FILE, Argument, Command, Option
from regard.cli.shared import (
    CHUNK_BATCHES,
    COUNT,
    SENTENCES,
    dtype_flag,
    model_flags,
    open_for,
    read_texts,
    search_flags,
    search_of,
)


def run(
    files: tuple[str, ...],
    model: str | None,
    threads: int | None,
    device: str,
    dtype: str | None,
    max_length: int | None,
    batch_size: int,
    as_json: bool,
    **how: object,
) -> None:
    """Summarize text files, or the lines of standard input; one output line per document."""
    search = search_of(how)
    documents = (Path(file).read_text(encoding="utf-8-sig") for file in files) if files else read_texts()
    summarizer = open_for("summarize", model, threads, device, dtype)
    cut = number = 0
    while chunk := list(itertools.islice(documents, CHUNK_BATCHES * batch_size)):
        for summary in summarizer.summarize(chunk, search=search, max_length=max_length, batch_size=batch_size):
            number, cut = number + 1, cut + summary.cut
            fields = {"summary": summary.text, "score": summary.score, "cut": summary.cut}
            line = json.dumps(fields, ensure_ascii=False) if as_json else " ".join(summary.text.split())
            sys.stdout.write(line + "\n")
        sys.stdout.flush()
    if cut:
        click.echo(f"{cut:,} of {number:,} documents are longer than the model reads: their ends were cut", err=True)


command = Command(
    "summarize",
    run,
    params=[
        Argument(
            "files",
            about="Text files, one document each; by default, the lines of standard input.",
            nargs=-1,
            type=FILE,
            metavar="[FILE]...",
        ),
        *model_flags(),
        dtype_flag(),
        *search_flags(),
        Option(
            ["--max-length"],
            type=COUNT,
            help="Maximum tokens of a summary; by default, 16 more than the longest in training.",
        ),
        Option(["--json", "as_json"], is_flag=True, help="Write a line of JSON per document: summary, score, cut."),
        Option(["--batch-size"], type=SENTENCES, default=32, show_default=True, help="Documents per batch."),
    ],
    examples=["regard summarize report.txt --model runs/summaries"],
)
