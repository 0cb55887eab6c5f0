"""Registry of jobs, for the command line, the trainer and `regard.load`.

It imports nothing heavy: the module of a job is imported on demand.
"""

import importlib
import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import entry_points
from pathlib import Path
from typing import TYPE_CHECKING, Any, final

from regard.errors import ConfigError, nearest

if TYPE_CHECKING:
    from regard.tasks.task import Task

ENTRY_POINTS = "regard.tasks"  # group of entry points by which installed packages add tasks
PICTURE_MODELS = ("vit", "conv-attention")  # architectures that classify pictures


@final
@dataclass(frozen=True, kw_only=True)
class Job:
    """Classes and verbs of a job.

    Args:
        runner: "module:Class" of the runner that `regard.load` returns for a folder of this job.
        task: "module:Class" of the task that trains it; None for a job that regard cannot train.
        verbs: verbs of the command line with their lines of help; each is implemented by `regard.cli.VERB`.
    """

    runner: str
    task: str | None = None
    verbs: Mapping[str, str] = field(default_factory=dict)


JOBS: dict[str, Job] = {
    "translate": Job(
        runner="regard.tasks.translate:Translator",
        task="regard.tasks.translate:Translate",
        verbs={"translate": "Translate texts."},
    ),
    "complete": Job(
        runner="regard.tasks.complete:TextGenerator",
        verbs={"complete": "Continue texts with a language model (text generation)."},
    ),
    "summarize": Job(
        runner="regard.tasks.summarize:Summarizer",
        task="regard.tasks.summarize:Summarize",
        verbs={"summarize": "Summarize documents."},
    ),
    "classify": Job(
        runner="regard.tasks.classify:Classifier",
        task="regard.tasks.classify:Classify",
        verbs={"classify": "Classify texts or pictures."},
    ),
    "encode": Job(
        runner="regard.tasks.encode:Encoder",
        verbs={"embed": "Embed texts or pictures as vectors.", "fill": "Predict masked words (fill-mask)."},
    ),
    "transcribe": Job(
        runner="regard.tasks.transcribe:Transcriber",
        task="regard.tasks.transcribe_training:Transcribe",
        verbs={"transcribe": "Transcribe speech."},
    ),
    "recognize": Job(
        runner="regard.tasks.recognize:Recognizer",
        task="regard.tasks.recognize_training:Recognize",
    ),
    "caption": Job(
        runner="regard.tasks.caption:Captioner",
        task="regard.tasks.caption:CaptionTask",
        verbs={"caption": "Describe pictures."},
    ),
    "pictures": Job(
        runner="regard.tasks.pictures:PictureEncoder",
        task="regard.tasks.classify_pictures:ClassifyPictures",
    ),
}
TRAINED = tuple(name for name, job in JOBS.items() if job.task is not None)
_registered: dict[str, "type[Task]"] = {}


def register_task(task: "type[Task]") -> "type[Task]":
    """Register a task by its name; usable as a decorator.

    Args:
        task: the class; no other task may have its `name`.

    Returns:
        The class.

    Raises:
        ConfigError: another task has the name.
    """
    if task.name in JOBS or _registered.get(task.name, task) is not task:
        raise ConfigError(f"a task {task.name!r} is registered already; give yours another name")
    _registered[task.name] = task
    return task


def task_class(name: str) -> "type[Task]":
    """Class of a task: one of regard's, a registered one, one of an installed package, or "module:Class".

    Args:
        name: name of the task, or "module:Class"; modules are also searched for in the current directory.

    Returns:
        The class.

    Raises:
        ConfigError: an unknown name, or a job that regard cannot train.
    """
    if ":" in name:
        if "" not in sys.path:
            sys.path.append("")
        try:
            task: Any = _imported(name)
        except (ImportError, AttributeError) as error:
            raise ConfigError(f"task={name!r} cannot be imported: {error}; expected module:Class") from error
        from regard.tasks.task import Task

        if not (isinstance(task, type) and issubclass(task, Task)):
            raise ConfigError(f"task={name!r} is {task!r}; expected a subclass of regard.Task")
        return task if task.name in _registered else register_task(task)
    if name in JOBS and (where := JOBS[name].task) is not None:
        known_task: type[Task] = _imported(where)
        return known_task
    if (other := _other(name)) is not None:
        return other
    known = [*TRAINED, *_registered]
    if name in JOBS:
        raise ConfigError(f"regard cannot train the task {name!r}; expected one of {', '.join(known)}")
    raise ConfigError(f"unknown task {name!r}; {nearest(name, known)}, or module:Class of your own")


RECOGNIZERS = ("listener", "speech-transformer")  # architectures of the job "recognize"


def job_of(name: str, model: str | None, files: Sequence[str], start: str | None) -> str:
    """The job that is meant by a name: "recognize" for "transcribe" where the model is trained from nothing.

    Args:
        name, model, files, start: as for `of_pictures`.

    Returns:
        A name of a job.
    """
    if name == "transcribe" and (model in RECOGNIZERS or (start is not None and _saved_job(start) == "recognize")):
        return "recognize"
    return of_pictures(name, model, files, start)


def _saved_job(folder: str) -> str | None:
    """The job of a model in regard's own format, if the folder is of one."""
    try:
        config = json.loads(Path(folder, "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return config.get("task") if isinstance(config, dict) else None


def of_pictures(name: str, model: str | None, files: Sequence[str], start: str | None) -> str:
    """The job that is meant by a name: "pictures" for "classify" where the model or the files are of pictures.

    Args:
        name: of a job.
        model: architecture; None for the default.
        files: of records; a folder holds pictures.
        start: folder of the model that training starts from; None for none.

    Returns:
        A name of a job.
    """
    if name != "classify":
        return name
    starts = start is not None and Path(start, "preprocessor_config.json").is_file()
    return "pictures" if starts or model in PICTURE_MODELS or any(Path(file).is_dir() for file in files) else name


def runner_class(name: str) -> Any:
    """Class of the runner that `regard.load` returns for a folder of a job; None for an unknown job."""
    if name in JOBS:
        return _imported(JOBS[name].runner)
    other = _other(name)
    return None if other is None else other.runner


def _other(name: str) -> "type[Task] | None":
    """Task that is registered or that an installed package adds; None if there is none."""
    if name in _registered:
        return _registered[name]
    for point in entry_points(group=ENTRY_POINTS, name=name):
        task: type[Task] = point.load()
        return register_task(task)
    return None


def _imported(where: str) -> Any:
    module, _, name = where.partition(":")
    return getattr(importlib.import_module(module), name)
