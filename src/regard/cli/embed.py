"""`regard embed`."""

import itertools
import json
import sys
import time
from collections.abc import Iterator
from typing import Any

import click

from regard.cli.command import FILE, Command, Option, Suggested
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
    pooling: str | None,
    prompt: str | None,
    prompt_name: str | None,
    raw: bool,
    npy: str | None,
    batch_size: int,
) -> None:
    """Turn texts, pictures, or the lines of standard input, into vectors of length 1, whose products are cosines.

    A line of JSON each, with "text" or "picture" and "embedding"; or all of them in one file of numpy's.
    """
    pictures = are_pictures(texts)
    lines = iter(texts) if pictures else texts_of("embed", texts, file)
    encoder = open_for("embed", model, threads, device)
    if check_reads(encoder, "embed", pictures=pictures):
        prompts = {"--prompt": prompt, "--prompt-name": prompt_name}
        for name in (name for name, x in prompts.items() if x is not None):
            raise click.UsageError(f"{name} is of texts, and the model reads pictures; leave it out")
        _embed_pictures(encoder, lines, {"pooling": pooling or "cls", "normalize": not raw}, npy, batch_size)
        return
    how = {"pooling": pooling, "prompt": prompt, "prompt_name": prompt_name, "normalize": False if raw else None}
    kept, done, cut = [], 0, 0
    shown, start = sys.stderr.isatty() and (npy is not None or not sys.stdout.isatty()), time.perf_counter()
    while chunk := list(itertools.islice(lines, BATCHES * batch_size)):
        found = encoder.embedded(chunk, **how, batch_size=batch_size)
        done, cut = done + len(chunk), cut + len(found.cut)
        if npy is not None:
            kept.append(found.vectors.numpy())
        else:
            for text, vector in zip(chunk, found.vectors.tolist(), strict=True):
                sys.stdout.write(json.dumps({"text": text, "embedding": vector}, ensure_ascii=False) + "\n")
            sys.stdout.flush()
        if shown:
            rate = done / (time.perf_counter() - start)
            click.echo(f"\r{done:,} texts, {rate:,.1f} a second", err=True, nl=False)
    if shown and done:
        click.echo(err=True)
    if cut:
        click.echo(f"{cut:,} of {done:,} texts are longer than the model reads: their ends were cut", err=True)
    if npy is not None:
        _write(npy, kept or [encoder.embed([], **how).numpy()])


def _embed_pictures(encoder: Any, names: Iterator[str], how: dict[str, Any], npy: str | None, batch_size: int) -> None:
    """The vectors of pictures by file name; NaN in a NumPy file for those that cannot be read."""
    failed: list[str] = []
    kept = [encoder.embed([], **how).numpy()]
    while chunk := list(itertools.islice(names, batch_size)):
        read = list(readable(encoder, chunk, failed))
        vectors = encoder.embed([pixels for _, pixels in read], **how, batch_size=batch_size)
        by_name = {name: vector for (name, _), vector in zip(read, vectors, strict=True)}
        if npy is not None:
            missing = vectors.new_full((vectors.shape[1],), float("nan"))
            kept += [by_name.get(name, missing).numpy()[None] for name in chunk]
        else:
            for name, vector in by_name.items():
                sys.stdout.write(json.dumps({"picture": name, "embedding": vector.tolist()}, ensure_ascii=False) + "\n")
            sys.stdout.flush()
    if npy is not None:
        _write(npy, kept)
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
        *text_params("Texts"),
        *model_flags(),
        Option(
            ["--pooling"],
            type=Suggested("mean", "cls", "max"),
            metavar="NAME",
            help="mean, cls, max, weightedmean, lasttoken or mean_sqrt_len_tokens of the tokens' vectors, or several "
            "joined by +; by default as the checkpoint says, or else mean.",
        ),
        Option(["--prompt"], metavar="TEXT", help='What stands before each text: "query: ".'),
        Option(["--prompt-name"], metavar="NAME", help="One of the checkpoint's prompts, such as query."),
        Option(["--raw"], is_flag=True, help="Leave the vectors as long as the checkpoint makes them."),
        Option(["--npy"], type=FILE, metavar="FILE", help="Write one array (texts, size) for numpy instead of JSON."),
        Option(["--batch-size"], type=SENTENCES, default=32, show_default=True, help="Texts per batch."),
    ],
    examples=[
        'regard embed "A cat sat on the mat." --model sentence-transformers/all-MiniLM-L6-v2',
        "regard embed --model sentence-transformers/all-MiniLM-L6-v2 --npy vectors.npy --file texts.txt",
        "regard embed photos/*.jpg --model facebook/dinov2-small --npy vectors.npy",
    ],
)
