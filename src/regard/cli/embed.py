"""`regard embed`."""

import itertools
import json
import sys
from collections.abc import Iterator
from typing import Any

import click

from regard.cli.command import FILE, Command, Option, Suggested
from regard.cli.output import counting
from regard.cli.pictures import are_pictures, check_reads, readable
from regard.cli.shared import CHUNK_BATCHES, SENTENCES, dtype_flag, model_flags, open_for
from regard.cli.texts import text_params, texts_of
from regard.errors import DataError


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
        _embed_pictures(encoder, lines, {"pooling": pooling or "cls", "normalize": not raw}, npy, batch_size)
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


def _embed_pictures(encoder: Any, names: Iterator[str], how: dict[str, Any], npy: str | None, batch_size: int) -> None:
    """The vectors of pictures by file name; NaN in a NumPy file for those that cannot be read."""
    failed: list[str] = []
    arrays = [encoder.embed([], **how).numpy()]
    while chunk := list(itertools.islice(names, batch_size)):
        read = list(readable(encoder, chunk, failed))
        vectors = encoder.embed([pixels for _, pixels in read], **how, batch_size=batch_size)
        by_name = {name: vector for (name, _), vector in zip(read, vectors, strict=True)}
        if npy is not None:
            missing = vectors.new_full((vectors.shape[1],), float("nan"))
            arrays += [by_name.get(name, missing).numpy()[None] for name in chunk]
        else:
            for name, vector in by_name.items():
                sys.stdout.write(json.dumps({"picture": name, "embedding": vector.tolist()}, ensure_ascii=False) + "\n")
            sys.stdout.flush()
    if npy is not None:
        _write(npy, arrays)
    if failed:
        raise DataError(f"{len(failed):,} of the pictures could not be read; see the lines above")


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
