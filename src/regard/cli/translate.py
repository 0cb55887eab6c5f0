"""`regard translate`."""

import itertools
import sys
import time
from collections.abc import Iterable, Iterator, Sequence

import click

from regard.cli.command import Command, Option
from regard.cli.shared import (
    SENTENCES,
    length_flags,
    model_flags,
    open_for,
    prefix_flags,
    search_flags,
    search_if_said,
)
from regard.cli.texts import is_typed, text_params, texts_of

NUMBERS_SHOWN = 8  # of lines, in a warning
BATCHES = 8  # that are read at a time: sentences of like length run together, so there must be a choice


def run(
    texts: tuple[str, ...],
    file: str | None,
    model: str | None,
    threads: int | None,
    device: str,
    prefix: str | None,
    task: str | None,
    max_length: int | None,
    whole: bool | None,
    batch_size: int,
    scores: bool,
    alignment: bool,
    **how: object,
) -> None:
    """Translate texts, or standard input line by line: a line in, a line out.

    Tab-separated columns: the line's number (with --n-best), the score, the text, the alignment.
    """
    n_best = how.get("n_best")
    if n_best and alignment:
        raise click.UsageError("--n-best and --alignment exclude each other: alignments are of the best translation")
    search = search_if_said(how)
    lines = texts_of("translate", texts, file)
    translator = open_for("translate", model, threads, device)
    size = 1 if is_typed(texts, file) else BATCHES * batch_size
    number = 0
    wanted = {"search": search, "prefix": prefix, "task": task, "max_length": max_length, "whole": whole}
    for chunk in _with_progress(_chunks(lines, size)):
        cut = []
        for translation in translator.translate(chunk, **wanted, batch_size=batch_size):
            number += 1
            if not all(candidate.finished for candidate in translation.candidates):
                cut.append(number)
            for candidate in translation.candidates:
                columns = [str(number)] if n_best else []
                columns += [f"{candidate.score:.4f}"] if scores else []
                columns += [_one_line(candidate.text)]
                columns += [translator.align(translation)] if alignment else []
                sys.stdout.write("\t".join(columns) + "\n")
        sys.stdout.flush()
        if cut:
            click.echo(_cut("text" if texts else "line", cut), err=True)


def _chunks(lines: Iterator[str], size: int) -> Iterator[list[str]]:
    while chunk := list(itertools.islice(lines, size)):
        yield chunk


def _cut(kind: str, numbers: Sequence[int]) -> str:
    """That the translations of these lines have no end of their own."""
    shown = ", ".join(map(str, numbers[:NUMBERS_SHOWN])) + (", ..." if len(numbers) > NUMBERS_SHOWN else "")
    several = len(numbers) > 1
    said = f"{kind}s {shown}: {len(numbers)} translations were" if several else f"{kind} {shown}: the translation was"
    return f"{said} cut at {'their' if several else 'its'} greatest length; raise it with --max-length"


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
        *text_params("What to translate"),
        *model_flags(),
        *prefix_flags(),
        *search_flags(sampling=True),
        *length_flags(),
        Option(["--scores"], is_flag=True, help="Show the score before each text: mean log-probability of its tokens."),
        Option(["--alignment"], is_flag=True, help='Show which words come from which after each text, as "0-0 2-1".'),
        Option(["--batch-size"], type=SENTENCES, default=32, show_default=True, help="Sentences per batch."),
    ],
    examples=[
        'regard translate "This package contains the documentation."',
        "regard translate --model runs/en-it --file input.txt.gz > output.txt",
    ],
)
