"""`regard complete`."""

import itertools
import json
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from regard.cli.command import Command, Count, Option
from regard.cli.shared import (
    BEAM_OPTIONS,
    CHUNK_BATCHES,
    SAMPLE_OPTIONS,
    SENTENCES,
    dtype_flag,
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


def run(
    texts: tuple[str, ...],
    file: str | None,
    model: str | None,
    threads: int | None,
    device: str,
    dtype: str | None,
    max_new_tokens: int | None,
    stop: tuple[str, ...],
    task: str | None,
    batch_size: int,
    as_json: bool,
    **how: Any,
) -> None:
    """Continue texts, or the lines of standard input (text generation).

    The continuation of a single text is written as it is generated, except by beam search. With several texts, or with
    --n-best, each continuation is one line, in which a space stands for each line break; --json keeps line breaks.
    """
    from regard.decode.search import Beam

    n_best = how.get("n_best")
    if not (how["sample"] or how["beam"] or n_best):  # an option of another search must not select that search
        names = (*BEAM_OPTIONS, *SAMPLE_OPTIONS)
        how["greedy"] = how["greedy"] or any(how.get(name) is not None for name in names)
    search = search_if_said(how)
    lines = texts_of("complete", texts, file)
    generator = open_for("complete", model, threads, device, dtype)
    search = generator.generation_config(task, search=search).search
    options = {"search": search, "max_new_tokens": max_new_tokens, "stop": stop or None, "task": task}
    options["batch_size"] = batch_size
    streams = not isinstance(search, Beam) and not as_json
    if streams and (len(texts) == 1 or is_typed(texts, file)):
        for text in lines:
            stream(generator, text, options)
        return
    number = 0
    while chunk := list(itertools.islice(lines, CHUNK_BATCHES * batch_size)):
        for completion in generator.complete(chunk, **options):
            number += 1
            for line in lines_of(completion, number if n_best else None, as_json=as_json):
                sys.stdout.write(line + "\n")
        sys.stdout.flush()


def stream(generator: "TextGenerator", text: str, options: dict[str, Any]) -> None:
    """Write the continuation of a text as it is generated, and a line break."""

    def write(_: int, piece: str) -> None:
        sys.stdout.write(piece)
        sys.stdout.flush()

    generator.complete([text], **options, on_text=write)
    sys.stdout.write("\n")


def lines_of(completion: "Completion", number: int | None, *, as_json: bool) -> Iterator[str]:
    """Output lines of a completion, one per candidate."""
    for candidate in completion.candidates:
        if as_json:
            fields = {
                "prompt": completion.prompt,
                "text": candidate.text,
                "score": candidate.score,
                "end": candidate.end,
            }
            yield json.dumps(fields, ensure_ascii=False)
        else:
            line = " ".join(candidate.text.splitlines())
            yield line if number is None else f"{number}\t{line}"


command = Command(
    "complete",
    run,
    params=[
        *text_params("Prompts"),
        *model_flags(),
        dtype_flag(),
        *search_flags(sampling=True, usual="greedy"),
        Option(
            ["--max-new-tokens"],
            type=Count(),
            help="Maximum tokens to generate; by default, that of the checkpoint, or 64.",
        ),
        task_flag(),
        Option(["--stop"], multiple=True, metavar="TEXT", help="Stop before this text; may be repeated."),
        Option(
            ["--json", "as_json"], is_flag=True, help="Write a line of JSON per continuation: prompt, text, score, end."
        ),
        Option(["--batch-size"], type=SENTENCES, default=32, show_default=True, help="Texts per batch."),
    ],
    examples=[
        'regard complete "Once upon a time" --model gpt2',
        'regard complete "Q: What is a key?" --model gpt2 --sample --top-p 0.9 --stop "Q:" --max-new-tokens 100',
        "regard complete --model gpt2 --json < prompts.txt > completions.jsonl",
    ],
)
