"""`regard translate`."""

import itertools
import sys
from collections.abc import Sequence

import click

from regard.cli.command import Command, Option
from regard.cli.output import counting
from regard.cli.shared import (
    CHUNK_BATCHES,
    SENTENCES,
    dtype_flag,
    length_flags,
    model_flags,
    open_for,
    prefix_flags,
    search_flags,
    search_if_said,
)
from regard.cli.texts import is_typed, text_params, texts_of

NUMBERS_SHOWN = 8  # line numbers in a warning


def run(
    texts: tuple[str, ...],
    file: str | None,
    model: str | None,
    threads: int | None,
    device: str,
    dtype: str | None,
    prefix: str | None,
    task: str | None,
    max_length: int | None,
    whole: bool | None,
    batch_size: int,
    scores: bool,
    alignment: bool,
    **how: object,
) -> None:
    """Translate texts, or the lines of standard input.

    One output line per text, with tab-separated columns: number of the text (with --n-best), score (--scores),
    translation, word alignment (--alignment).
    """
    n_best = how.get("n_best")
    if n_best and alignment:
        raise click.UsageError("--n-best and --alignment exclude each other: alignments are of the best translation")
    search = search_if_said(how)
    lines = texts_of("translate", texts, file)
    translator = open_for("translate", model, threads, device, dtype)
    size = 1 if is_typed(texts, file) else CHUNK_BATCHES * batch_size
    number = 0
    options = {"search": search, "prefix": prefix, "task": task, "max_length": max_length, "whole": whole}
    with counting("lines", shown=not sys.stdout.isatty()) as add:
        while chunk := list(itertools.islice(lines, size)):
            unfinished = []
            for translation in translator.translate(chunk, **options, batch_size=batch_size):
                number += 1
                if not all(candidate.finished for candidate in translation.candidates):
                    unfinished.append(number)
                for candidate in translation.candidates:
                    columns = [str(number)] if n_best else []
                    columns += [f"{candidate.score:.4f}"] if scores else []
                    columns += [_one_line(candidate.text)]
                    columns += [translator.align(translation)] if alignment else []
                    sys.stdout.write("\t".join(columns) + "\n")
            sys.stdout.flush()
            add(len(chunk))
            if unfinished:
                click.echo(_warning("text" if texts else "line", unfinished), err=True)


def _warning(kind: str, numbers: Sequence[int]) -> str:
    """Warning that the translations of these texts or lines were cut off."""
    shown = ", ".join(map(str, numbers[:NUMBERS_SHOWN])) + (", ..." if len(numbers) > NUMBERS_SHOWN else "")
    if len(numbers) == 1:
        return f"{kind} {shown}: the translation was cut off at its maximum length; raise it with --max-length"
    return (
        f"{kind}s {shown}: {len(numbers)} translations were cut off at their maximum length; raise it with --max-length"
    )


def _one_line(text: str) -> str:
    return " ".join(text.splitlines()).replace("\t", " ")


command = Command(
    "translate",
    run,
    params=[
        *text_params("Texts to translate"),
        *model_flags(),
        dtype_flag(),
        *prefix_flags(),
        *search_flags(sampling=True),
        *length_flags(),
        Option(
            ["--scores"], is_flag=True, help="Show the score of each translation: mean log-probability of its tokens."
        ),
        Option(
            ["--alignment"],
            is_flag=True,
            help='Show the word alignment of each translation, such as "0-0 2-1": source word, target word.',
        ),
        Option(["--batch-size"], type=SENTENCES, default=32, show_default=True, help="Texts per batch."),
    ],
    examples=[
        'regard translate "This package contains the documentation."',
        "regard translate --model runs/en-it --file input.txt.gz > output.txt",
    ],
)
