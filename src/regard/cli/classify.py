"""`regard classify`."""

import itertools
import json
import sys

from regard.cli.command import Command, Count, Option
from regard.cli.shared import BATCHES, SENTENCES, model_flags, open_for
from regard.cli.texts import text_params, texts_of


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
    """Classify texts, or the lines of standard input; one output line per text.

    Tab-separated columns: a label and its probability, the most probable first.
    """
    lines = texts_of("classify", texts, file)
    classifier = open_for("classify", model, threads, device)
    while chunk := list(itertools.islice(lines, BATCHES * batch_size)):
        for result in classifier.classify(chunk, top=top, batch_size=batch_size):
            if as_json:
                plain = {"text": result.text, "labels": dict(result.labels)}
                sys.stdout.write(json.dumps(plain, ensure_ascii=False) + "\n")
            else:
                sys.stdout.write("\t".join(f"{label}\t{p:.4f}" for label, p in result.labels) + "\n")
        sys.stdout.flush()


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
    examples=['regard classify "A film that I would see again." --model runs/reviews'],
)
