"""`regard embed`."""

import itertools
import json
import sys

import click

from regard.cli.command import FILE, Command, Option, Suggested
from regard.cli.output import counting
from regard.cli.shared import CHUNK_BATCHES, SENTENCES, model_flags, open_for
from regard.cli.texts import text_params, texts_of


def run(
    texts: tuple[str, ...],
    file: str | None,
    model: str | None,
    threads: int | None,
    device: str,
    pooling: str | None,
    prompt: str | None,
    prompt_name: str | None,
    raw: bool,
    npy: str | None,
    batch_size: int,
) -> None:
    """Embed texts, or the lines of standard input, as vectors of length 1, whose products are cosine similarities.

    One line of JSON per text, with "text" and "embedding"; or all vectors in one file for numpy.
    """
    lines = texts_of("embed", texts, file)
    encoder = open_for("embed", model, threads, device)
    options = {"pooling": pooling, "prompt": prompt, "prompt_name": prompt_name, "normalize": False if raw else None}
    vectors, total, cut = [], 0, 0
    with counting("texts", shown=npy is not None or not sys.stdout.isatty()) as add:
        while chunk := list(itertools.islice(lines, CHUNK_BATCHES * batch_size)):
            embedded = encoder.embedded(chunk, **options, batch_size=batch_size)
            total, cut = total + len(chunk), cut + len(embedded.cut)
            if npy is not None:
                vectors.append(embedded.vectors.numpy())
            else:
                for text, vector in zip(chunk, embedded.vectors.tolist(), strict=True):
                    sys.stdout.write(json.dumps({"text": text, "embedding": vector}, ensure_ascii=False) + "\n")
                sys.stdout.flush()
            add(len(chunk))
    if cut:
        click.echo(f"{cut:,} of {total:,} texts are longer than the model reads: their ends were cut", err=True)
    if npy is not None:
        import numpy as np

        with open(npy, "wb") as output:  # noqa: PTH123 - np.save would append a suffix to a name
            np.save(output, np.concatenate(vectors) if vectors else encoder.embed([], **options).numpy())
        click.echo(f"wrote {npy}", err=True)


command = Command(
    "embed",
    run,
    params=[
        *text_params("Texts to embed"),
        *model_flags(),
        Option(
            ["--pooling"],
            type=Suggested("mean", "cls", "max"),
            metavar="NAME",
            help="How a text's vector comes from its tokens': mean, cls, max, weightedmean, lasttoken or "
            "mean_sqrt_len_tokens, or several joined by +; by default, that of the checkpoint, or mean.",
        ),
        Option(["--prompt"], metavar="TEXT", help='Text to put before each text, such as "query: ".'),
        Option(["--prompt-name"], metavar="NAME", help="Name of a prompt of the checkpoint, such as query."),
        Option(["--raw"], is_flag=True, help="Don't scale the vectors to length 1."),
        Option(
            ["--npy"], type=FILE, metavar="FILE", help="Write one numpy array (texts, size) to a file instead of JSON."
        ),
        Option(["--batch-size"], type=SENTENCES, default=32, show_default=True, help="Texts per batch."),
    ],
    examples=[
        'regard embed "A cat sat on the mat." --model sentence-transformers/all-MiniLM-L6-v2',
        "regard embed --model sentence-transformers/all-MiniLM-L6-v2 --npy vectors.npy --file texts.txt",
    ],
)
