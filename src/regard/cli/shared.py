"""Options and inputs that several verbs have."""

import inspect
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Literal

import click

from regard.cli.command import FOLDER, Count, Option, Suggested
from regard.data.files import LONGEST_LINE, STANDARD_INPUT, show, without_mark
from regard.errors import DataError, UnsupportedError
from regard.tasks.registry import JOBS

if TYPE_CHECKING:
    from regard.decode.search import Search

COUNT = Count()
THREADS, SENTENCES = Count(1024), Count(100_000)  # what a machine can be asked for
DEVICE = Suggested("auto", "cpu", "cuda", "mps")
OF_BEAM, OF_SAMPLE = ("n_best", "length_penalty"), ("temperature", "top_k", "top_p", "seed")
# Verbs that call the model's method of this name.
METHODS = (*(verb for job in JOBS.values() for verb in job.verbs), "evaluate", "see")
BEAM = 4
BATCHES = 8  # that are read at a time: texts of like length run together, so there must be a choice


def model_flags() -> list[click.Parameter]:
    """Which model, and how it runs."""
    return [
        Option(
            ["--model"],
            type=FOLDER,
            metavar="FOLDER",
            help="A run's folder, or a published checkpoint's folder or name; by default the model that regard ships.",
        ),
        Option(["--threads"], type=THREADS, help="Threads; all cores by default."),
        device_flag(),
    ]


def device_flag() -> click.Parameter:
    """Where a model runs."""
    return Option(["--device"], type=DEVICE, default="cpu", show_default=True, help="cpu, cuda, cuda:0, mps or auto.")


def search_flags(*, sampling: bool = False, usual: Literal["beam", "greedy"] = "beam") -> list[click.Parameter]:
    """How the target is looked for; `usual` is what the verb does without such a flag."""
    of_beam, of_greedy = ("", "  [default]") if usual == "greedy" else (f"  [default: {BEAM}]", "")
    flags: list[click.Parameter] = [
        Option(["--beam"], type=COUNT, metavar="SIZE", help=f"Beam search with SIZE hypotheses.{of_beam}"),
        Option(
            ["--length-penalty"],
            type=float,
            metavar="X",
            help="Length penalty of beam search: above 1 favors longer outputs.  [default: 1.0]",
        ),
        Option(["--greedy"], is_flag=True, help=f"The most probable token at each step: fast.{of_greedy}"),
    ]
    if sampling:
        flags += [
            Option(["--sample"], is_flag=True, help="Draw each token by its probability."),
            Option(
                ["--temperature"],
                type=float,
                metavar="X",
                help="Sampling temperature: below 1 sharpens the distribution, above 1 flattens it.  [default: 1.0]",
            ),
            Option(["--top-k"], type=COUNT, help="Sample from the N most probable tokens only."),
            Option(
                ["--top-p"],
                type=float,
                metavar="X",
                help="Nucleus sampling: from the fewest tokens whose probabilities sum to X.",
            ),
            Option(["--seed"], type=int, metavar="N", help="Random seed of sampling."),
            Option(["--n-best"], type=COUNT, help="Show the best N hypotheses of beam search."),
        ]
    return flags


def search_if_said(given: dict[str, Any]) -> "Search | None":
    """The search that the options say, None if they say nothing; they are taken out of `given`."""
    names = ("beam", "greedy", "sample", *OF_BEAM, *OF_SAMPLE)
    said = any(given.get(name) not in (None, False) for name in names)
    search = search_of(given)
    return search if said else None


def prefix_flags() -> list[click.Parameter]:
    """What a text-to-text model is told before each text."""
    return [
        Option(
            ["--prefix"], metavar="TEXT", help='What the model reads before each text: "translate English to German: ".'
        ),
        task_flag(),
    ]


def length_flags() -> list[click.Parameter]:
    """How long targets and sources may be."""
    return [
        Option(
            ["--max-length"],
            type=COUNT,
            help="Tokens of a target at most; by default more than training had, or as the checkpoint says.",
        ),
        Option(["--whole"], is_flag=True, default=None, help="Never split a text, however long."),
    ]


def task_flag() -> click.Parameter:
    """One of the tasks of a published checkpoint."""
    return Option(["--task"], metavar="NAME", help="A task that the checkpoint's config.json names, with its settings.")


def search_of(given: dict[str, Any]) -> "Search":
    """The search that the options say; they are taken out of `given`."""
    from regard.decode.search import Beam, Greedy, Sample

    beam, greedy, sample = (given.pop(name, None) for name in ("beam", "greedy", "sample"))
    details = {name: given.pop(name, None) for name in (*OF_BEAM, *OF_SAMPLE)}
    details = {name: x for name, x in details.items() if x is not None}
    ways = [name for name, x in (("--beam", beam), ("--greedy", greedy), ("--sample", sample)) if x]
    if len(ways) > 1:
        raise click.UsageError(f"{' and '.join(ways)} exclude each other; give one of them")
    fitting = OF_SAMPLE if sample else () if greedy else OF_BEAM
    for name in details:
        if name not in fitting:
            needed, got = ("--sample" if name in OF_SAMPLE else "beam search"), (ways or ["beam search"])[0]
            raise click.UsageError(f"--{name.replace('_', '-')} needs {needed}; this is {got}")
    if sample:
        return Sample(**details)
    return Greedy() if greedy else Beam(size=beam or max(BEAM, details.get("n_best", 1)), **details)


def open_model(model: str | None, threads: int | None, device: str) -> Any:
    """The model of a folder, or the one that is shipped, ready to run on a device and so many threads."""
    import torch

    from regard.tasks.load import load

    if threads is not None:
        torch.set_num_threads(threads)
    return load(model, device=device)


def open_for(job: str, model: str | None, threads: int | None, device: str) -> Any:
    """The same, if it has the method of this name."""
    opened = open_model(model, threads, device)
    name, kind = model or "the model that regard ships", type(opened).__name__
    if not hasattr(opened, job):
        article = "an" if kind[0] in "AEIO" else "a"
        can = ", ".join(one for one in METHODS if hasattr(opened, one))
        raise UnsupportedError(
            f"{name} is {article} {kind}, which cannot {job}; give the folder or the hub's name of one that can: "
            f"--model. This one can: {can}"
        )
    return opened


def accepted(runner: Any, method: str, settings: dict[str, Any]) -> dict[str, Any]:
    """The settings, all of which a runner's method takes; UsageError names one that it does not."""
    known = inspect.signature(getattr(runner, method)).parameters
    for name in settings:
        if name not in known:
            raise click.UsageError(
                f"{method} of a model of this kind ({type(runner).__name__}) takes no {name}; leave it out"
            )
    return settings


def read_texts() -> Iterator[str]:
    """The lines of standard input, as they come."""
    lines = iter(lambda: sys.stdin.buffer.readline(LONGEST_LINE + 1), b"")
    for number, line in enumerate(lines, start=1):
        content = (without_mark(STANDARD_INPUT, line) if number == 1 else line).removesuffix(b"\n").removesuffix(b"\r")
        if len(content) > LONGEST_LINE:
            raise DataError(f"standard input:{number}: more than {LONGEST_LINE:,} bytes in a line: {show(content)}")
        try:
            yield content.decode()
        except UnicodeDecodeError as error:
            raise DataError(f"standard input:{number}: not UTF-8 at byte {error.start + 1}: {show(content)}") from error
