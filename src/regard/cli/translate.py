"""`regard translate`."""

import itertools
import sys
import time
from collections.abc import Iterable, Iterator

import click

from regard.cli.command import Command, Flag, Words
from regard.cli.shared import SENTENCES, model_flags, open_for, prefix_flags, read_texts, search_flags, search_if_said

BATCHES = 8  # that are read at a time: sentences of like length run together, so there must be a choice


def run(
    texts: tuple[str, ...],
    model: str | None,
    threads: int | None,
    prefix: str | None,
    task: str | None,
    batch_size: int,
    scores: bool,
    alignment: bool,
    **how: object,
) -> None:
    """Translate texts, or standard input line by line: a line in, a line out.

    Columns are parted by tabs: the line's number (with --n-best), the score, the text, the alignment.
    """
    n_best = how.get("n_best")
    if n_best and alignment:
        raise click.UsageError("--n-best and --alignment exclude each other: alignments are of the best translation")
    search = search_if_said(how)
    translator = open_for("translate", model, threads)
    interactive = not texts and sys.stdin.isatty()
    lines = iter(texts) if texts else read_texts()
    size = 1 if interactive else BATCHES * batch_size
    number = 0
    for chunk in _with_progress(_chunks(lines, size)):
        for translation in translator.translate(chunk, search=search, prefix=prefix, task=task, batch_size=batch_size):
            number += 1
            for candidate in translation.candidates:
                columns = [str(number)] if n_best else []
                columns += [f"{candidate.score:.4f}"] if scores else []
                columns += [_one_line(candidate.text)]
                columns += [translator.align(translation)] if alignment else []
                sys.stdout.write("\t".join(columns) + "\n")
        sys.stdout.flush()


def _chunks(lines: Iterator[str], size: int) -> Iterator[list[str]]:
    while chunk := list(itertools.islice(lines, size)):
        yield chunk


def _one_line(text: str) -> str:
    return " ".join(text.splitlines()).replace("\t", " ")


def _with_progress(chunks: Iterable[list[str]]) -> Iterator[list[str]]:
    """The chunks; on a terminal that shows errors only, how many lines are done."""
    shown = sys.stderr.isatty() and not sys.stdout.isatty()
    start, done = time.perf_counter(), 0
    for chunk in chunks:
        yield chunk
        done += len(chunk)
        if shown:
            rate = done / (time.perf_counter() - start)
            click.echo(f"\r{done:,} lines, {rate:,.1f} a second", err=True, nl=False)
    if shown and done:
        click.echo(err=True)


command = Command(
    "translate",
    run,
    params=[
        Words(
            "texts", about="What to translate; without it, the lines of standard input.", nargs=-1, metavar="[TEXT]..."
        ),
        *model_flags(),
        *prefix_flags(),
        *search_flags(sampling=True),
        Flag(["--scores"], is_flag=True, help="Show the score before each text: mean log-probability of its tokens."),
        Flag(["--alignment"], is_flag=True, help='Show which words come from which after each text, as "0-0 2-1".'),
        Flag(["--batch-size"], type=SENTENCES, default=32, show_default=True, help="Sentences that run together."),
    ],
    examples=[
        'regard translate "This package contains the documentation."',
        "regard translate --model runs/en-it < input.txt > output.txt",
    ],
)
