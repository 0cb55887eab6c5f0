"""`regard classify`."""

import itertools
import json
import sys
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

from regard.cli.command import Command, Count, Option
from regard.cli.output import on_terminal, print_table
from regard.cli.shared import CHUNK_BATCHES, SENTENCES, model_flags, open_for
from regard.cli.texts import text_params, texts_of

if TYPE_CHECKING:
    from regard.tasks.classify import Classification


def run(
    texts: tuple[str, ...],
    file: str | None,
    model: str | None,
    threads: int | None,
    device: str,
    top: int,
    batch_size: int,
    as_json: bool,
) -> None:
    """Classify texts, or the lines of standard input.

    One output line per text, with tab-separated columns: a label and its probability, the most probable first. On a
    terminal, a table.
    """
    lines = texts_of("classify", texts, file)
    classifier = open_for("classify", model, threads, device)
    console = None if as_json else on_terminal()
    while chunk := list(itertools.islice(lines, CHUNK_BATCHES * batch_size)):
        results = classifier.classify(chunk, top=top, batch_size=batch_size)
        if console is not None:
            print_table(console, ("text", "label", "probability"), _rows(results), numbers=1)
            continue
        for result in results:
            if as_json:
                fields = {"text": result.text, "labels": dict(result.labels)}
                sys.stdout.write(json.dumps(fields, ensure_ascii=False) + "\n")
            else:
                sys.stdout.write("\t".join(f"{label}\t{p:.4f}" for label, p in result.labels) + "\n")
        sys.stdout.flush()


def _rows(results: "Iterable[Classification]") -> Iterator[tuple[str, str, str]]:
    """Rows of a table, one per label; the text is in the first of its rows."""
    for result in results:
        for i, (label, probability) in enumerate(result.labels):
            yield "" if i else result.text, label, f"{probability:.4f}"


command = Command(
    "classify",
    run,
    params=[
        *text_params("Texts to classify"),
        *model_flags(),
        Option(["--top"], type=Count(), default=1, show_default=True, help="Number of labels shown for each text."),
        Option(["--json", "as_json"], is_flag=True, help="Write a line of JSON per text: text, labels."),
        Option(["--batch-size"], type=SENTENCES, default=32, show_default=True, help="Texts per batch."),
    ],
    examples=['regard classify "A film that I would see again." --model runs/reviews'],
)
