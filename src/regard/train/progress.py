"""Progress and pace of a run."""

import dataclasses
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, final

from regard.data.sampler import Position


@final
@dataclass
class Progress:
    """Progress of a run, which a checkpoint stores in its state.json."""

    step: int = 0
    position: Position = field(default_factory=Position)  # of the next batch in the data
    units: int = 0  # target tokens or rows trained on, over all processes
    seconds: float = 0.0  # of training, evaluation included, over all processes that resumed the run
    best: float | None = None  # metric of the best model on the held-out rows
    best_step: int = 0
    since_best: int = 0  # evaluations since the best one
    loss: float = 0.0  # sum over the units trained on since the last evaluation
    counted: int = 0  # number of those units

    def to_plain(self) -> dict[str, Any]:
        """Progress as JSON types."""
        return dataclasses.asdict(self)

    @staticmethod
    def from_plain(plain: Mapping[str, Any]) -> "Progress":
        """Progress from the result of `to_plain`; other keys are ignored."""
        names = {f.name for f in dataclasses.fields(Progress)} & plain.keys()
        return Progress(**{**{name: plain[name] for name in names}, "position": Position(**plain["position"])})

    @property
    def mean_loss(self) -> float:
        """Mean loss since the last evaluation."""
        return self.loss / max(1, self.counted)


@final
class Pace:
    """Speed of a run since the process started and since the last evaluation.

    Args:
        progress: progress at the start of the process.
        started: start of the process, by `time.perf_counter`.
    """

    def __init__(self, progress: Progress, started: float) -> None:
        self._seconds_before, self._started = progress.seconds, started
        self._first_step = self._last_step = progress.step
        self._first_time = self._last_time = time.perf_counter()
        self._units = 0

    def add(self, progress: Progress, units: int) -> None:
        """Count a step of a number of units."""
        self._units += units
        progress.seconds = self._seconds_before + time.perf_counter() - self._started

    @property
    def speed(self) -> float:
        """Units per second since the last evaluation."""
        return self._units / (time.perf_counter() - self._last_time)

    def seconds_left(self, progress: Progress, steps: int) -> float:
        """Estimated seconds until the end of a run of a number of steps."""
        return (time.perf_counter() - self._first_time) / (progress.step - self._first_step) * (steps - progress.step)

    def evaluated(self, progress: Progress) -> tuple[float, float]:
        """Seconds per step since the last evaluation and since the start, both including evaluations."""
        now = time.perf_counter()
        progress.seconds = self._seconds_before + now - self._started
        recent, overall = (now - self._last_time) / (progress.step - self._last_step), now - self._first_time
        overall /= progress.step - self._first_step
        self._last_time, self._last_step, self._units = now, progress.step, 0
        return recent, overall
