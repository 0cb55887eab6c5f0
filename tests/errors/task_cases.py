"""Tasks that are unknown, or that take no such options: see `cases.py`."""

import sys
import tempfile
from pathlib import Path
from unittest import mock

import regard as rg
from regard.errors import ConfigError
from regard.tasks.classify import Classify
from regard.tasks.registry import register_task, task_class
from regard.tasks.task import Task
from tests.errors.cases import Case


class Translate(Task):
    """A task of a user's own, under a name that one of regard's has."""

    name = "translate"


def own(where: str) -> object:
    """Look for a task of a user's own; where modules are looked for stays as it was."""
    with mock.patch.object(sys, "path", [*sys.path]):
        return task_class(where)


def sized() -> object:
    """Train a job whose models have no sizes."""
    with tempfile.TemporaryDirectory() as name:
        return rg.train(Path(name, "films.csv"), task="classify", size="base", steps=1, out=Path(name, "run"))


CASES: list[Case] = [
    (
        "task-taken",
        lambda: register_task(Translate),
        ConfigError,
        "a task 'translate' is registered already; give yours",
    ),
    (
        "task-module",
        lambda: own("nowhere:Sing"),
        ConfigError,
        "task='nowhere:Sing' cannot be imported: No module named 'nowhere'; expected module:Class",
    ),
    (
        "task-no-task",
        lambda: own("json:dumps"),
        ConfigError,
        "expected a subclass of regard.Task",
    ),
    (
        "task-not-trained",
        lambda: task_class("encode"),
        ConfigError,
        "regard cannot train the task 'encode'; expected one of translate, summarize, classify",
    ),
    (
        "task-unknown",
        lambda: task_class("summarizes"),
        ConfigError,
        "unknown task 'summarizes'; did you mean 'summarize'?",
    ),
    (
        "task-field",
        lambda: Classify.read(["films.csv"], fields={"txt": "review"}),
        ConfigError,
        "fields: a record of 'classify' has no 'txt'; did you mean 'text'?",
    ),
    ("task-option", sized, ConfigError, "size='base': the task 'classify' has no such option; leave it out"),
]
