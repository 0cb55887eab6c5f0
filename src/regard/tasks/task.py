"""Task: the interface between a job and the trainer.

A task turns a user's files into rows on disk, rows into batches, and a model's outputs into a loss and metrics.
The trainer knows nothing else about a job. `tasks.registry` lists the jobs.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, NamedTuple, Protocol, TypeVar

import numpy as np
import torch
from torch import Tensor, nn

from regard.data.files import shown_name
from regard.data.prepare import Preparation, Prepared, is_prepared_from, prepare
from regard.data.reader import RecordReader, as_files
from regard.data.record import Record
from regard.data.rows import columns_of
from regard.data.sampler import Rows
from regard.data.store import RecordStore
from regard.errors import ConfigError, DataError, nearest

Progress = Callable[[str, int], None]  # the action, and the number of rows done
Batch = TypeVar("Batch", bound=tuple[Any, ...])


class Loss(NamedTuple):
    """Sums of the loss over the units of a batch: target tokens, or rows."""

    minimized: Tensor  # (): differentiable
    reported: Tensor  # (): without label smoothing and other regularizers, detached


class Best(NamedTuple):
    """Metric by which the best weights of a run are chosen."""

    metric: str = "loss"
    higher: bool = False  # whether a higher value is better


class JobOptions(Protocol):
    """Options of a run that tasks read; `regard.TrainOptions` documents them."""

    files: tuple[str, ...]
    start: str | None
    parallel: tuple[str, str] | None
    format: str | None
    delimiter: str | None
    fields: Mapping[str, str] | None
    valid: str | None
    held_out: int
    skip_bad_rows: bool
    vocab_size: int | None
    max_tokens: int
    model: str | None
    size: str | None
    model_settings: Mapping[str, Any] | None
    task_settings: Mapping[str, Any] | None
    attention: Mapping[str, Any] | None
    dropout: float | None
    label_smoothing: float
    batch_tokens: int
    seed: int


class Task(ABC):
    """Job that a model is trained for.

    Args:
        options: options of the run.
        start: runner of the model to fine-tune; None to train from random weights.

    Raises:
        ConfigError: options that the job does not have, or that exclude each other.
    """

    name: ClassVar[str]
    runner: ClassVar[Any]  # class of what `regard.load` returns for a model of this job
    fields: ClassVar[Mapping[str, str]]  # part of a record -> default field or column
    models: ClassVar[tuple[str, ...]]  # architectures for the job, the default first
    rows: ClassVar[str] = "rows"  # name of the rows in messages, such as "pairs"
    unit: ClassVar[str] = "tokens"  # unit of the mean loss and of the speed
    best: ClassVar[Best] = Best()
    perplexity: ClassVar[bool] = True  # whether exp(loss) is meaningful
    fine_tuning_rate: ClassVar[float] = 2e-4  # default peak learning rate with a model to start from

    def __init__(self, options: JobOptions, start: Any = None) -> None:
        self.options, self.start = options, start
        self.check_options()
        names = ("fields", "parallel", "format", "delimiter", "skip_bad_rows")
        self.reader = self.read(options.files, **{name: getattr(options, name) for name in names})
        self.valid_reader = None if options.valid is None else self.reader.for_files((options.valid,))
        self.preparation = self.make_preparation()
        self.data: Prepared[Any]

    def check_options(self) -> None:  # noqa: B027 - most jobs accept all options
        """Raise ConfigError for options that the job does not have, before any file is opened."""

    @classmethod
    @abstractmethod
    def convert(cls, record: Record) -> Any:
        """Record of the job from the values of a row, by part; a `BadRow` with the reason if there is none."""

    @classmethod
    def read(
        cls,
        files: Sequence[str],
        *,
        fields: Mapping[str, str] | None = None,
        parallel: tuple[str, ...] | None = None,
        format: str | None = None,
        delimiter: str | None = None,
        skip_bad_rows: bool = False,
    ) -> RecordReader[Any]:
        """Reader of the job's records.

        Args:
            files: as for `RecordReader`.
            fields: field or column of parts of a record that differ from the default.
            parallel, format, delimiter, skip_bad_rows: as for `RecordReader`.

        Raises:
            ConfigError: a part that the job's records don't have; and as `RecordReader`.
            DataError: as `RecordReader`.
        """
        for part in fields or ():
            if part not in cls.fields:
                raise ConfigError(f"fields: a record of {cls.name!r} has no {part!r}; {nearest(part, cls.fields)}")
        names = {**cls.fields, **(fields or {})}
        return RecordReader(
            fields=names,
            convert=cls.convert,
            files=as_files(list(files)),
            parallel=parallel,
            columns=columns_of(tuple(names.values())),
            format=format,
            delimiter=delimiter,
            skip_bad_rows=skip_bad_rows,
        )

    @abstractmethod
    def make_preparation(self) -> Preparation[Any]:
        """Conversion of records to rows of numbers."""

    def prepare(self, folder: Path, progress: Progress) -> None:
        """Turn the records into rows on disk, unless the folder has them already.

        Args:
            folder: folder of the rows.
            progress: function to call at intervals.

        Raises:
            DataError: records that cannot be used.
        """
        valid, held_out = self.valid_reader, self.options.held_out
        self.data = prepare(self.reader, folder, self.preparation, valid=valid, held_out=held_out, progress=progress)

    def is_prepared(self, folder: Path) -> bool:
        """Whether a folder has the rows of the records that the options name, unchanged."""
        readers = [self.reader, *([] if self.valid_reader is None else [self.valid_reader])]
        return is_prepared_from(folder, readers)

    @property
    def notes(self) -> list[str]:
        """Lines about how files were read, where that does not follow from their names."""
        return [f"{shown_name(file)}: {note}" for file, note in self.data.counts.get("read_as", {}).items()]

    @property
    def summary(self) -> str:
        """One line about the prepared data: number of rows, and reasons for rows left out."""
        counts = self.data.counts
        reasons = {**counts.get("left_out", {}), **counts["skipped"]}
        left_out = ", ".join(f"{count:,} {reason}" for reason, count in reasons.items())
        return (
            f"{counts['train']:,} {self.rows} to train on, {counts['valid']:,} held out; left out: {left_out or 'none'}"
        )

    @property
    def digests(self) -> Mapping[str, str]:
        """Digests of the processor and the rows, which must not change when a run resumes."""
        rows = {split: self.store(split).digest for split in ("train", "valid")}
        return {"processor": self.preparation.digest, **rows}

    @property
    def counts(self) -> Mapping[str, int]:
        """Number of rows of "train" and of "valid" (held out)."""
        return {split: len(self.store(split)) for split in ("train", "valid")}

    def store(self, split: str) -> RecordStore:
        """Rows of "train" or "valid"."""
        return self.data.train if split == "train" else self.data.valid

    @abstractmethod
    def build(self) -> nn.Module:
        """Model to train, with its initial weights."""

    @abstractmethod
    def sizes(self, split: str, rows: Rows) -> np.ndarray[Any, Any]:
        """Sizes (n, k) of rows of "train" or "valid", for `BatchSampler`: padded length first."""

    def units(self, rows: Rows) -> int:
        """Number of units in training rows, by which the loss is divided; by default, the number of rows."""
        return len(rows)

    @abstractmethod
    def batch(self, split: str, rows: Sequence[int] | Rows) -> tuple[Any, ...]:
        """Batch of rows as tensors on the CPU, for `loss` and `measure`."""

    @abstractmethod
    def loss(self, module: nn.Module, batch: Any) -> Loss:
        """Loss of a batch, from one call of the module, which may be wrapped for distributed training."""

    def measure(self, module: nn.Module, batch: Any) -> Tensor:
        """Sums over a batch, (k,) float64, from whose totals `metrics` computes the metrics."""
        reported = self.loss(module, batch).reported
        return torch.tensor([float(reported), self.batch_units(batch)], dtype=torch.float64)

    def batch_units(self, batch: Any) -> int:
        """Number of units in a batch; by default, the rows of its first tensor."""
        return len(batch[0])

    def metrics(self, sums: Tensor) -> dict[str, float]:
        """Metrics by name from the totals of `measure`; "loss" is one of them."""
        return {"loss": float(sums[0] / sums[1])}

    def sample(self, module: nn.Module, number: int) -> list[tuple[str, str]]:
        """Labels and texts that show the model's output for a held-out record; none by default."""
        return []

    def save(self, folder: Path, module: nn.Module, training: Mapping[str, Any]) -> None:
        """Save the model for `regard.load`.

        Args:
            folder: folder of the run.
            module: model, not wrapped.
            training: description of the run for config.json, under "training".
        """
        self.runner(module, self.data.processor, {"training": {**training, "data": self.data.counts}}).save(folder)

    def settings(self, *names: str) -> dict[str, Any]:
        """The settings of the task that the options have; ConfigError for one whose name is not among these."""
        settings = dict(self.options.task_settings or {})
        for name in settings:
            if name not in names:
                raise ConfigError(f"task_settings: {self.name} has no setting {name!r}; {nearest(name, names)}")
        return settings

    def refuse(self, **options: Any) -> None:
        """Raise ConfigError for options that this job does not have, unless they are None or empty."""
        for name, x in options.items():
            if x:
                raise ConfigError(f"{name}={x!r}: the task {self.name!r} has no such option; leave it out")


def in_folders(files: Sequence[str]) -> bool:
    """Whether records are in folders rather than files; DataError if only some of the paths are folders."""
    folders = [file for file in files if Path(file).is_dir()]
    if folders and len(folders) < len(files):
        raise DataError(f"{folders[0]} is a folder, and others of the paths are files; give only folders or only files")
    return bool(folders)


def to_device(batch: Batch, device: torch.device) -> Batch:
    """Named tuple with its tensors moved to a device."""
    moved = (x.to(device, non_blocking=True) if isinstance(x, Tensor) else x for x in batch)
    return type(batch)(*moved)
