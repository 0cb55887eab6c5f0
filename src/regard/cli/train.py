"""`regard train`."""

from typing import Any

import click

from regard.cli.command import FILE, FOLDER, Option, Suggested
from regard.cli.options import DataclassCommand
from regard.cli.shared import DEVICE
from regard.train.options import PRECISIONS, SCHEDULES, TrainOptions


def run(config: str | None, **values: Any) -> None:
    """Train a model on your data. The same command, run again, resumes an interrupted run."""
    values["parallel"] = values["parallel"] or None
    if not values["files"] and not values["parallel"]:
        raise click.UsageError("give files of records, or --parallel SOURCES TARGETS")
    options = TrainOptions(**values)
    from regard.train.run import train

    train(options)


command = DataclassCommand(
    "train",
    run,
    options=TrainOptions,
    nested={"model": "model_settings", "attention": "attention", "field": "fields", "task": "task_settings"},
    types={
        "files": FILE,
        "out": FOLDER,
        "start": FOLDER,
        "parallel": FILE,
        "valid": FILE,
        "model": Suggested("transformer", "rnn", "luong", "convs2s", "listener", "speech-transformer"),
        "size": Suggested("tiny", "small", "base", "big"),
        "schedule": Suggested(*SCHEDULES),
        "optimizer": Suggested("adamw", "sgd"),
        "precision": Suggested(*PRECISIONS),
        "device": DEVICE,
    },
    params=[
        Option(
            ["--config"], type=FILE, metavar="FILE", help="JSON or TOML file with any of these options.", heading="Run"
        )
    ],
    examples=[
        "regard train pairs.tsv --out runs/en-it",
        "regard train pairs.tsv --model rnn --minutes 30 --attention.score additive",
        "regard train more.tsv --from runs/en-it --out runs/it2",
    ],
)
