"""`regard classify`."""

import itertools
import json
import sys
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

from regard.cli.command import Command, Count, Option
from regard.cli.output import on_terminal, print_table
from regard.cli.pictures import are_pictures, check_reads, results_of
from regard.cli.shared import CHUNK_BATCHES, SENTENCES, dtype_flag, model_flags, open_for
from regard.cli.texts import text_params, texts_of

if TYPE_CHECKING:
    from regard.tasks.classify import Classification
    from regard.tasks.pictures import PictureClassification
    from regard.vision.pictures import Pixels


def run(
    texts: tuple[str, ...],
    file: str | None,
    model: str | None,
    threads: int | None,
    device: str,
    dtype: str | None,
    top: int,
    batch_size: int,
    as_json: bool,
) -> None:
    """Classify texts, pictures, or the lines of standard input.

    One output line per text, with tab-separated columns: a label and its probability, the most probable first; before
    them, a picture's file name. Of texts on a terminal, a table.
    """
    pictures = are_pictures(texts)
    lines = iter(texts) if pictures else texts_of("classify", texts, file)
    classifier = open_for("classify", model, threads, device, dtype)
    if check_reads(classifier, "classify", pictures=pictures):
        _classify_pictures(classifier, lines, top, batch_size, as_json)
        return
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


def _classify_pictures(classifier: Any, names: Iterator[str], top: int, batch_size: int, as_json: bool) -> None:
    """Write a line per picture: its file name and its labels."""

    def run(pictures: "list[Pixels]") -> "list[PictureClassification]":
        return classifier.classify(pictures, top=top, batch_size=batch_size)  # type: ignore[no-any-return]

    for name, result in results_of(classifier, names, run, batch_size):
        if result is None:
            continue
        if as_json:
            sys.stdout.write(json.dumps({"picture": name, "labels": dict(result.labels)}, ensure_ascii=False) + "\n")
        else:
            sys.stdout.write("\t".join([name, *(f"{label}\t{p:.4f}" for label, p in result.labels)]) + "\n")
        sys.stdout.flush()


command = Command(
    "classify",
    run,
    params=[
        *text_params("Texts to classify"),
        *model_flags(),
        dtype_flag(),
        Option(["--top"], type=Count(), default=1, show_default=True, help="Number of labels shown for each text."),
        Option(["--json", "as_json"], is_flag=True, help="Write a line of JSON per text: text, labels."),
        Option(["--batch-size"], type=SENTENCES, default=32, show_default=True, help="Texts per batch."),
    ],
    examples=[
        'regard classify "A film that I would see again." --model runs/reviews',
        "regard classify photos/*.jpg --model runs/clothes --top 3",
    ],
)
