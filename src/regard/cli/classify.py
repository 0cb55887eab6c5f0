"""`regard classify`."""

import itertools
import json
import sys
from collections.abc import Iterator
from typing import Any

from regard.cli.command import Command, Count, Option
from regard.cli.pictures import are_pictures, check_reads, readable
from regard.cli.shared import BATCHES, SENTENCES, model_flags, open_for
from regard.cli.texts import text_params, texts_of
from regard.errors import DataError


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
    """Classify texts, pictures, or the lines of standard input; one output line each.

    Tab-separated columns: a label and its probability, the most probable first; before them, a picture's file name.
    """
    pictures = are_pictures(texts)
    lines = iter(texts) if pictures else texts_of("classify", texts, file)
    classifier = open_for("classify", model, threads, device)
    if check_reads(classifier, "classify", pictures=pictures):
        _classify_pictures(classifier, lines, top, batch_size, as_json)
        return
    while chunk := list(itertools.islice(lines, BATCHES * batch_size)):
        for result in classifier.classify(chunk, top=top, batch_size=batch_size):
            if as_json:
                plain = {"text": result.text, "labels": dict(result.labels)}
                sys.stdout.write(json.dumps(plain, ensure_ascii=False) + "\n")
            else:
                sys.stdout.write("\t".join(f"{label}\t{p:.4f}" for label, p in result.labels) + "\n")
        sys.stdout.flush()


def _classify_pictures(classifier: Any, names: Iterator[str], top: int, batch_size: int, as_json: bool) -> None:
    """The lines of pictures by file name; those that cannot be read are told of, and the others go on."""
    failed: list[str] = []
    while chunk := list(itertools.islice(names, batch_size)):
        read = list(readable(classifier, chunk, failed))
        results = classifier.classify([pixels for _, pixels in read], top=top, batch_size=batch_size)
        for (name, _), result in zip(read, results, strict=True):
            if as_json:
                plain = {"picture": name, "labels": dict(result.labels)}
                sys.stdout.write(json.dumps(plain, ensure_ascii=False) + "\n")
            else:
                columns = [name, *(f"{label}\t{p:.4f}" for label, p in result.labels)]
                sys.stdout.write("\t".join(columns) + "\n")
        sys.stdout.flush()
    if failed:
        raise DataError(f"{len(failed):,} of the pictures could not be read; see the lines above")


command = Command(
    "classify",
    run,
    params=[
        *text_params("What to classify"),
        *model_flags(),
        Option(["--top"], type=Count(), default=1, show_default=True, help="Labels of each text."),
        Option(["--json", "as_json"], is_flag=True, help="A line of JSON each: text, labels."),
        Option(["--batch-size"], type=SENTENCES, default=32, show_default=True, help="Texts per batch."),
    ],
    examples=[
        'regard classify "A film that I would see again." --model runs/reviews',
        "regard classify photos/*.jpg --model runs/clothes --top 3",
    ],
)
