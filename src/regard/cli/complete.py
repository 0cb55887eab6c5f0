"""`regard complete`."""

import itertools
import json
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from regard.cli.command import Command, Count, Option
from regard.cli.shared import (
    OF_BEAM,
    OF_SAMPLE,
    SENTENCES,
    model_flags,
    open_for,
    search_flags,
    search_if_said,
    task_flag,
)
from regard.cli.texts import is_typed, text_params, texts_of

if TYPE_CHECKING:
    from regard.tasks.complete import TextGenerator
    from regard.tasks.completion import Completion

BATCHES = 8  # that are read at a time: texts of as many tokens run together, so there must be a choice


def run(
    texts: tuple[str, ...],
    file: str | None,
    model: str | None,
    threads: int | None,
    device: str,
    max_new_tokens: int | None,
    stop: tuple[str, ...],
    task: str | None,
    batch_size: int,
    as_json: bool,
    **how: Any,
) -> None:
    """Continue texts, or the lines of standard input.

    The continuation of a single text is written as it is generated, except by beam search. With several texts, or with
    --n-best, each continuation is one line, in which a space stands for each line break; --json keeps line breaks.
    """
    from regard.decode.search import Beam

    n_best = how.get("n_best")
    if not (how["sample"] or how["beam"] or n_best):  # what refines a search chooses none
        how["greedy"] = how["greedy"] or any(how.get(name) is not None for name in (*OF_BEAM, *OF_SAMPLE))
    search = search_if_said(how)
    lines = texts_of("complete", texts, file)
    completer = open_for("complete", model, threads, device)
    search = completer.generation_config(task, search=search).search
    settings = {"search": search, "max_new_tokens": max_new_tokens, "stop": stop or None, "task": task}
    settings["batch_size"] = batch_size
    streams = not isinstance(search, Beam) and not as_json
    if streams and (len(texts) == 1 or is_typed(texts, file)):
        for text in lines:
            write_as_it_comes(completer, text, settings)
        return
    number = 0
    while chunk := list(itertools.islice(lines, BATCHES * batch_size)):
        for found in completer.complete(chunk, **settings):
            number += 1
            for line in told(found, number if n_best else None, as_json=as_json):
                sys.stdout.write(line + "\n")
        sys.stdout.flush()


def write_as_it_comes(completer: "TextGenerator", text: str, settings: dict[str, Any]) -> None:
    """The continuation of one text, piece by piece, and the end of a line."""

    def write(_: int, piece: str) -> None:
        sys.stdout.write(piece)
        sys.stdout.flush()

    completer.complete([text], **settings, on_text=write)
    sys.stdout.write("\n")


def told(found: "Completion", number: int | None, *, as_json: bool) -> Iterator[str]:
    """The lines that tell of a text: one for each way that it goes on."""
    for one in found.candidates:
        if as_json:
            fields = {"prompt": found.prompt, "text": one.text, "score": one.score, "end": one.end}
            yield json.dumps(fields, ensure_ascii=False)
        else:
            line = " ".join(one.text.splitlines())
            yield line if number is None else f"{number}\t{line}"


command = Command(
    "complete",
    run,
    params=[
        *text_params("Prompts"),
        *model_flags(),
        *search_flags(sampling=True, usual="greedy"),
        Option(
            ["--max-new-tokens"],
            type=Count(),
            help="Tokens to write, at most; by default as the checkpoint says, or else 64.",
        ),
        task_flag(),
        Option(["--stop"], multiple=True, metavar="TEXT", help="End before this text; can be given several times."),
        Option(["--json", "as_json"], is_flag=True, help="A line of JSON each: prompt, text, score, end."),
        Option(["--batch-size"], type=SENTENCES, default=32, show_default=True, help="Texts per batch."),
    ],
    examples=[
        'regard complete "Once upon a time" --model gpt2',
        'regard complete "Q: What is a key?" --model gpt2 --sample --top-p 0.9 --stop "Q:" --max-new-tokens 100',
        "regard complete --model gpt2 --json < prompts.txt > completions.jsonl",
    ],
)
