"""`regard fill`."""

import itertools
import json
import sys

from regard.cli.command import Command, Count, Option
from regard.cli.shared import CHUNK_BATCHES, SENTENCES, dtype_flag, model_flags, open_for
from regard.cli.texts import text_params, texts_of


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
    """Predict masked words of texts, or of the lines of standard input (fill-mask).

    One line per predicted word, the most probable first, with tab-separated columns: number of the text, number of the
    mask, probability, word, filled text.
    """
    lines = texts_of("fill", texts, file)
    encoder = open_for("fill", model, threads, device, dtype)
    number = 0
    while chunk := list(itertools.islice(lines, CHUNK_BATCHES * batch_size)):
        for filling in encoder.fill(chunk, top=top, batch_size=batch_size):
            number += 1
            if as_json:
                places = [[{"word": w.text, "probability": w.probability} for w in words] for words in filling.places]
                fields = {"source": filling.source, "text": filling.text, "places": places}
                sys.stdout.write(json.dumps(fields, ensure_ascii=False) + "\n")
                continue
            best = [words[0] for words in filling.places]
            for i, words in enumerate(filling.places):
                for word in words:
                    text = filling.with_words([*best[:i], word, *best[i + 1 :]])
                    sys.stdout.write(f"{number}\t{i + 1}\t{word.probability:.4f}\t{word.text}\t{text}\n")
        sys.stdout.flush()


command = Command(
    "fill",
    run,
    params=[
        *text_params("Texts with masks, such as [MASK] or <mask>"),
        *model_flags(),
        dtype_flag(),
        Option(["--top"], type=Count(), default=5, show_default=True, help="Number of words for each mask."),
        Option(["--json", "as_json"], is_flag=True, help="Write a line of JSON per text: source, text, places."),
        Option(["--batch-size"], type=SENTENCES, default=32, show_default=True, help="Texts per batch."),
    ],
    examples=['regard fill "Paris is the [MASK] of France." --model google-bert/bert-base-uncased'],
)
