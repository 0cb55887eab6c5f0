"""`regard quantize`."""

import itertools
import json

import click

from regard.cli.command import FILE, FOLDER, Argument, Command, Option
from regard.cli.output import print_result
from regard.cli.shared import COUNT, SENTENCES, THREADS, open_model
from regard.errors import UnsupportedError

MAX_ERROR = 0.1  # as in `compress.quantize`, whose import takes seconds


def run(
    folder: str | None,
    out: str,
    data: str | None,
    first: int | None,
    max_error: float,
    batch_size: int,
    threads: int | None,
    as_json: bool,
) -> None:
    """Save a model with int8 weights, and compare it with the float32 model: size, speed and score.

    With --data, each linear map whose outputs have too large an error in int8 stays in float32.
    """
    from regard.compress.quantize import quantize
    from regard.tasks.registry import task_class

    runner = open_model(folder, threads, "cpu")
    records = None
    if data is not None:
        if not hasattr(runner, "evaluate"):
            raise UnsupportedError(
                f"--data {data}: a {type(runner).__name__} has no evaluation, so that it cannot be compared with its "
                "int8 model on records; leave --data out"
            )
        records = list(itertools.islice(task_class(runner.job).read((data,)), first))
    report = quantize(runner, records, max_error=max_error, batch_size=batch_size)
    runner.save(out)
    if as_json:
        click.echo(json.dumps({**report.to_plain(), "folder": out}, indent=2))
        return
    print_result(report)
    click.echo(f"wrote {out}", err=True)


command = Command(
    "quantize",
    run,
    params=[
        Argument(
            "folder",
            about="Folder of a run, or folder or hub name of a published checkpoint; by default, the shipped model.",
            required=False,
            type=FOLDER,
        ),
        Option(["--out"], type=FOLDER, metavar="FOLDER", required=True, help="Folder to write, created if missing."),
        Option(["--data"], type=FILE, metavar="FILE", help="Records to measure errors, speed and score on."),
        Option(["--first"], type=COUNT, help="Use the first N records only."),
        Option(
            ["--max-error"],
            type=float,
            default=MAX_ERROR,
            show_default=True,
            metavar="X",
            help="Relative error of a linear map's outputs beyond which it stays in float32.",
        ),
        Option(["--batch-size"], type=SENTENCES, default=32, show_default=True, help="Records per batch."),
        Option(["--threads"], type=THREADS, help="Number of threads; by default, all cores."),
        Option(["--json", "as_json"], is_flag=True, help="Print JSON instead of a table."),
    ],
    examples=["regard quantize runs/en-it --out runs/en-it-int8 --data valid.tsv"],
)
