"""Task: what differs between jobs, as the trainer sees it.

A task turns a user's files into rows on disk, rows into batches, and a model's outputs into a loss and metrics.
Training knows nothing else of a job. `tasks.registry` names the jobs.
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
from regard.errors import ConfigError, nearest

Progress = Callable[[str, int], None]  # what is being done, and how many rows of it are done
Batch = TypeVar("Batch", bound=tuple[Any, ...])


class Loss(NamedTuple):
    """Sums over the counted units of a batch: target tokens, or rows."""

    minimized: Tensor  # (): differentiable
    reported: Tensor  # (): without label smoothing and other regularizers, detached


class Best(NamedTuple):
    """The metric that decides which weights of a run are kept."""

    metric: str = "loss"
    higher: bool = False  # whether a higher value is better


class JobOptions(Protocol):
    """What a task reads of the options of a run, which `regard.TrainOptions` documents."""

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
    """A job that a model is trained for.

    Args:
        options: of the run.
        start: the runner that training starts from, for fine-tuning; None to train from random weights.

    Raises:
        ConfigError: options that the job does not have, or that don't go together.
    """

    name: ClassVar[str]
    runner: ClassVar[Any]  # class of what `regard.load` returns for a model of this job
    fields: ClassVar[Mapping[str, str]]  # the part of a record -> the field or column that holds it by default
    models: ClassVar[tuple[str, ...]]  # architectures for the job, the default first
    rows: ClassVar[str] = "rows"  # what a row is called in messages, such as "pairs"
    unit: ClassVar[str] = "tokens"  # what the loss is a mean over, and what speed counts
    best: ClassVar[Best] = Best()
    perplexity: ClassVar[bool] = True  # whether exp(loss) means something

    def __init__(self, options: JobOptions, start: Any = None) -> None:
        self.options, self.start = options, start
        self.check_options()
        names = ("fields", "parallel", "format", "delimiter", "skip_bad_rows")
        self.reader = self.read(options.files, **{name: getattr(options, name) for name in names})
        self.valid_reader = None if options.valid is None else self.reader.for_files((options.valid,))
        self.preparation = self.make_preparation()
        self.data: Prepared[Any]

    def check_options(self) -> None:  # noqa: B027 - most jobs take all
        """Raise ConfigError for options that the job does not have, before any file is opened."""

    @classmethod
    @abstractmethod
    def convert(cls, record: Record) -> Any:
        """A record of the job from the values of a row, by part; or a `BadRow` that says why there is none."""

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
        """A reader of the job's records.

        Args:
            files: as for `RecordReader`.
            fields: the field or column of some parts of a record, where it is not the default.
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
        """How records become rows of numbers."""

    def prepare(self, folder: Path, progress: Progress) -> None:
        """Turn the records into rows on disk; do nothing where the folder holds them already.

        Args:
            folder: where to.
            progress: called now and then.

        Raises:
            DataError: records that cannot be used.
        """
        valid, held_out = self.valid_reader, self.options.held_out
        self.data = prepare(self.reader, folder, self.preparation, valid=valid, held_out=held_out, progress=progress)

    def is_prepared(self, folder: Path) -> bool:
        """Whether a folder holds rows of records with the content that the options name now."""
        readers = [self.reader, *([] if self.valid_reader is None else [self.valid_reader])]
        return is_prepared_from(folder, readers)

    @property
    def notes(self) -> list[str]:
        """How files were read, where their names do not say all of it: a line each."""
        return [f"{shown_name(file)}: {note}" for file, note in self.data.counts.get("read_as", {}).items()]

    @property
    def summary(self) -> str:
        """One line about the prepared data: how many rows there are, and what was left out."""
        counts = self.data.counts
        reasons = {**counts.get("left_out", {}), **counts["skipped"]}
        left = ", ".join(f"{count:,} {reason}" for reason, count in reasons.items())
        return f"{counts['train']:,} {self.rows} to train on, {counts['valid']:,} held out; left out: {left or 'none'}"

    @property
    def digests(self) -> Mapping[str, str]:
        """Digests of what must be the same when a run is resumed: of the processor and the rows."""
        rows = {split: self.store(split).digest for split in ("train", "valid")}
        return {"processor": self.preparation.digest, **rows}

    @property
    def counts(self) -> Mapping[str, int]:
        """Rows to train on and held out: "train" and "valid"."""
        return {split: len(self.store(split)) for split in ("train", "valid")}

    def store(self, split: str) -> RecordStore:
        """The rows of "train" or "valid"."""
        return self.data.train if split == "train" else self.data.valid

    @abstractmethod
    def build(self) -> nn.Module:
        """The model to train, with weights to start from."""

    @abstractmethod
    def sizes(self, split: str, rows: Rows) -> np.ndarray[Any, Any]:
        """Sizes (n, k) of rows of "train" or "valid", for `BatchSampler`: padded length first."""

    def units(self, rows: Rows) -> int:
        """Units of some training rows, which the loss is divided by; as many as rows by default."""
        return len(rows)

    @abstractmethod
    def batch(self, split: str, rows: Sequence[int] | Rows) -> tuple[Any, ...]:
        """Rows as tensors on the CPU: what `loss` and `measure` take."""

    @abstractmethod
    def loss(self, module: nn.Module, batch: Any) -> Loss:
        """The loss of a batch, through one call of the module, which may be wrapped for several processes."""

    def measure(self, module: nn.Module, batch: Any) -> Tensor:
        """Sums over a batch, (k,) float64, of which `metrics` makes metrics once all are added up."""
        reported = self.loss(module, batch).reported
        return torch.tensor([float(reported), self.batch_units(batch)], dtype=torch.float64)

    def batch_units(self, batch: Any) -> int:
        """Units of a batch; as many as the rows of its first tensor by default."""
        return len(batch[0])

    def metrics(self, sums: Tensor) -> dict[str, float]:
        """Metrics by name of the added sums of `measure`, "loss" among them."""
        return {"loss": float(sums[0] / sums[1])}

    def sample(self, module: nn.Module, number: int) -> list[tuple[str, str]]:
        """Lines that show what the model makes of a held-out record: (label, text); none by default."""
        return []

    def save(self, folder: Path, module: nn.Module, training: Mapping[str, Any]) -> None:
        """Write the model as `regard.load` reads it.

        Args:
            folder: of the run.
            module: the model, not wrapped.
            training: what config.json says of the run under "training".
        """
        self.runner(module, self.data.processor, {"training": {**training, "data": self.data.counts}}).save(folder)

    def refuse(self, **given: Any) -> None:
        """Raise ConfigError for an option that this job does not have, unless it is None or empty."""
        for name, x in given.items():
            if x:
                raise ConfigError(f"{name}={x!r}: the task {self.name!r} has no such option; leave it out")


def to_device(batch: Batch, device: torch.device) -> Batch:
    """A named tuple with its tensors on the device."""
    moved = (x.to(device, non_blocking=True) if isinstance(x, Tensor) else x for x in batch)
    return type(batch)(*moved)
