"""`regard embed`."""

import itertools
import json
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import click

from regard.cli.command import FILE, Command, Option, Suggested
from regard.cli.output import counting
from regard.cli.pictures import are_pictures, check_reads, results_of
from regard.cli.shared import CHUNK_BATCHES, SENTENCES, dtype_flag, model_flags, open_for
from regard.cli.texts import text_params, texts_of
from regard.errors import DataError

if TYPE_CHECKING:
    from torch import Tensor

    from regard.vision.pictures import Pixels


def run(
    texts: tuple[str, ...],
    file: str | None,
    model: str | None,
    threads: int | None,
    device: str,
    dtype: str | None,
    pooling: str | None,
    prompt: str | None,
    prompt_name: str | None,
    raw: bool,
    npy: str | None,
    batch_size: int,
) -> None:
    """Embed texts, pictures, or the lines of standard input, as vectors of length 1: products are cosines.

    One line of JSON each, with "text" or "picture" and "embedding"; or all vectors in one file for numpy.
    """
    pictures = are_pictures(texts)
    lines = iter(texts) if pictures else texts_of("embed", texts, file)
    encoder = open_for("embed", model, threads, device, dtype)
    if check_reads(encoder, "embed", pictures=pictures):
        prompts = {"--prompt": prompt, "--prompt-name": prompt_name}
        for name in (name for name, x in prompts.items() if x is not None):
            raise click.UsageError(f"{name} is of texts, and the model reads pictures; leave it out")
        _embed_pictures(encoder, lines, {"pooling": pooling, "normalize": not raw}, npy, batch_size)
        return
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
        _write(npy, vectors or [encoder.embed([], **options).numpy()])


def _embed_pictures(
    encoder: Any, names: Iterator[str], options: dict[str, Any], npy: str | None, batch_size: int
) -> None:
    """Write the vector of each picture; in a NumPy file, NaN for those that cannot be read."""
    empty = encoder.embed([], **options)
    vectors = [empty.numpy()]

    def run(pictures: "list[Pixels]") -> "Tensor":
        return encoder.embed(pictures, **options, batch_size=batch_size)  # type: ignore[no-any-return]

    unread = None
    try:
        for name, vector in results_of(encoder, names, run, batch_size):
            if npy is not None:
                missing = empty.new_full((empty.shape[1],), float("nan"))
                vectors.append((missing if vector is None else vector).numpy()[None])
            elif vector is not None:
                sys.stdout.write(json.dumps({"picture": name, "embedding": vector.tolist()}, ensure_ascii=False) + "\n")
                sys.stdout.flush()
    except DataError as error:
        unread = error
    if npy is not None:
        _write(npy, vectors)
    if unread is not None:
        raise unread


def _write(npy: str, parts: list[Any]) -> None:
    import numpy as np

    with open(npy, "wb") as file:  # noqa: PTH123 - numpy would add an end to a name
        np.save(file, np.concatenate(parts))
    click.echo(f"wrote {npy}", err=True)


command = Command(
    "embed",
    run,
    params=[
        *text_params("Texts to embed"),
        *model_flags(),
        dtype_flag(),
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
        "regard embed photos/*.jpg --model facebook/dinov2-small --npy vectors.npy",
    ],
)
