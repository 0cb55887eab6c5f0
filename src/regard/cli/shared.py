"""Options and inputs that several verbs share."""

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
THREADS, SENTENCES = Count(1024), Count(100_000)
DEVICE = Suggested("auto", "cpu", "cuda", "mps")
BEAM_OPTIONS, SAMPLE_OPTIONS = ("n_best", "length_penalty"), ("temperature", "top_k", "top_p", "seed")
# Methods of models that the verbs of the same names call.
METHODS = (*(verb for job in JOBS.values() for verb in job.verbs), "evaluate", "see")
BEAM = 4
CHUNK_BATCHES = 8  # batches of texts that are read at a time, since texts of similar length run together


def model_flags() -> list[click.Parameter]:
    """Options of the model and of the machine it runs on."""
    return [
        Option(
            ["--model"],
            type=FOLDER,
            metavar="FOLDER",
            help="Folder of a run, or folder or hub name of a published checkpoint; by default, the shipped model.",
        ),
        Option(["--threads"], type=THREADS, help="Number of threads; by default, all cores."),
        device_flag(),
    ]


def dtype_flag() -> click.Parameter:
    """Option of the number format of a model's weights."""
    return Option(
        ["--dtype"],
        type=click.Choice(["float32", "int8"]),
        help="Number format of the weights: int8 is faster on the CPU and a little less exact; by default, as saved.",
    )


def device_flag() -> click.Parameter:
    """Option of the device that a model runs on."""
    return Option(
        ["--device"], type=DEVICE, default="cpu", show_default=True, help="Device: cpu, cuda, cuda:0, mps or auto."
    )


def search_flags(*, sampling: bool = False, usual: Literal["beam", "greedy"] = "beam") -> list[click.Parameter]:
    """Options of the search.

    Args:
        sampling: whether the verb can sample.
        usual: search of the verb without such an option.
    """
    beam_default, greedy_default = ("", "  [default]") if usual == "greedy" else (f"  [default: {BEAM}]", "")
    flags: list[click.Parameter] = [
        Option(["--beam"], type=COUNT, metavar="SIZE", help=f"Beam search with SIZE beams.{beam_default}"),
        Option(
            ["--length-penalty"],
            type=float,
            metavar="X",
            help="Length penalty of beam search; above 1: longer outputs.  [default: 1.0]",
        ),
        Option(
            ["--greedy"],
            is_flag=True,
            help=f"Greedy search: the most probable token at each step; fast.{greedy_default}",
        ),
    ]
    if sampling:
        flags += [
            Option(["--sample"], is_flag=True, help="Sample each token from the model's distribution."),
            Option(
                ["--temperature"],
                type=float,
                metavar="X",
                help="Sampling temperature; below 1: sharper, above 1: flatter.  [default: 1.0]",
            ),
            Option(["--top-k"], type=COUNT, help="Sample from the N most probable tokens only."),
            Option(
                ["--top-p"],
                type=float,
                metavar="X",
                help="Nucleus sampling: from the fewest tokens whose probabilities sum to at least X.",
            ),
            Option(["--seed"], type=int, metavar="N", help="Random seed of sampling."),
            Option(["--n-best"], type=COUNT, help="Write the N best hypotheses of beam search."),
        ]
    return flags


def search_if_said(options: dict[str, Any]) -> "Search | None":
    """Search that the options select, or None without any; removes them from `options`."""
    names = ("beam", "greedy", "sample", *BEAM_OPTIONS, *SAMPLE_OPTIONS)
    is_selected = any(options.get(name) not in (None, False) for name in names)
    search = search_of(options)
    return search if is_selected else None


def prefix_flags() -> list[click.Parameter]:
    """Options of the prefix that a text-to-text model reads before each text."""
    return [
        Option(["--prefix"], metavar="TEXT", help='Prefix of each text, such as "translate English to German: ".'),
        task_flag(),
    ]


def length_flags() -> list[click.Parameter]:
    """Options of the lengths of sources and targets."""
    return [
        Option(
            ["--max-length"],
            type=COUNT,
            help="Maximum tokens of an output; by default, from the training data or the checkpoint.",
        ),
        Option(["--whole"], is_flag=True, default=None, help="Never split long texts into parts."),
    ]


def task_flag() -> click.Parameter:
    """Option of a task of a published checkpoint."""
    return Option(["--task"], metavar="NAME", help="Task of the checkpoint's config.json whose settings to use.")


def search_of(options: dict[str, Any]) -> "Search":
    """Search that the options select; removes them from `options`."""
    from regard.decode.search import Beam, Greedy, Sample

    beam, greedy, sample = (options.pop(name, None) for name in ("beam", "greedy", "sample"))
    details = {name: options.pop(name, None) for name in (*BEAM_OPTIONS, *SAMPLE_OPTIONS)}
    details = {name: x for name, x in details.items() if x is not None}
    selected = [name for name, x in (("--beam", beam), ("--greedy", greedy), ("--sample", sample)) if x]
    if len(selected) > 1:
        raise click.UsageError(f"{' and '.join(selected)} exclude each other; give one of them")
    allowed = SAMPLE_OPTIONS if sample else () if greedy else BEAM_OPTIONS
    for name in details:
        if name not in allowed:
            needed = "--sample" if name in SAMPLE_OPTIONS else "beam search"
            current = (selected or ["beam search"])[0]
            raise click.UsageError(f"--{name.replace('_', '-')} needs {needed}; this is {current}")
    if sample:
        return Sample(**details)
    return Greedy() if greedy else Beam(size=beam or max(BEAM, details.get("n_best", 1)), **details)


def open_model(model: str | None, threads: int | None, device: str, dtype: str | None = None) -> Any:
    """Runner of a model, or of the shipped model, on a device and a number of threads."""
    import torch

    from regard.tasks.load import load

    if threads is not None:
        torch.set_num_threads(threads)
    return load(model, device=device, dtype=dtype)


def open_for(job: str, model: str | None, threads: int | None, device: str, dtype: str | None = None) -> Any:
    """Runner of a model that has the method of a job; UnsupportedError for one that has not."""
    runner = open_model(model, threads, device, dtype)
    name, kind = model or "the model that regard ships", type(runner).__name__
    if not hasattr(runner, job):
        article = "an" if kind[0] in "AEIO" else "a"
        methods = ", ".join(method for method in METHODS if hasattr(runner, method))
        raise UnsupportedError(
            f"{name} is {article} {kind}, which cannot {job}; give the folder or the hub name of a model that can with "
            f"--model. This one can: {methods}"
        )
    return runner


def accepted(runner: Any, method: str, settings: dict[str, Any]) -> dict[str, Any]:
    """The settings, if a runner's method accepts them all; else a UsageError that names one it does not."""
    known = inspect.signature(getattr(runner, method)).parameters
    for name in settings:
        if name not in known:
            raise click.UsageError(
                f"{method} of a model of this kind ({type(runner).__name__}) takes no {name}; leave it out"
            )
    return settings


def read_texts() -> Iterator[str]:
    """Lines of standard input, as they arrive."""
    lines = iter(lambda: sys.stdin.buffer.readline(LONGEST_LINE + 1), b"")
    for number, line in enumerate(lines, start=1):
        content = (without_mark(STANDARD_INPUT, line) if number == 1 else line).removesuffix(b"\n").removesuffix(b"\r")
        if len(content) > LONGEST_LINE:
            raise DataError(f"standard input:{number}: the line is longer than {LONGEST_LINE:,} bytes: {show(content)}")
        try:
            yield content.decode()
        except UnicodeDecodeError as error:
            raise DataError(f"standard input:{number}: not UTF-8 at byte {error.start + 1}: {show(content)}") from error
