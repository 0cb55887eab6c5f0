"""Progress: how far a run has come, as a checkpoint keeps it beside the tensors."""

import dataclasses
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, final

from regard.data.sampler import Position


@final
@dataclass
class Progress:
    """How far a run has come."""

    step: int = 0
    position: Position = field(default_factory=Position)  # of the next batch
    units: int = 0  # target tokens or rows trained on, over all processes
    seconds: float = 0.0  # spent training, evaluation included, over all sittings
    best: float | None = None  # the deciding metric on the held-out rows
    best_step: int = 0
    since_best: int = 0  # evaluations
    loss: float = 0.0  # sum over the units since the last evaluation
    counted: int = 0  # those units

    def to_plain(self) -> dict[str, Any]:
        """The same as JSON's types."""
        return dataclasses.asdict(self)

    @staticmethod
    def from_plain(plain: Mapping[str, Any]) -> "Progress":
        """What `to_plain` gave; other keys are left out."""
        names = {f.name for f in dataclasses.fields(Progress)} & plain.keys()
        return Progress(**{**{name: plain[name] for name in names}, "position": Position(**plain["position"])})

    @property
    def mean_loss(self) -> float:
        """The mean since the last evaluation."""
        return self.loss / max(1, self.counted)


@final
class Pace:
    """Seconds a step, in this sitting and since the last evaluation.

    Args:
        progress: at the start of the sitting.
        started: when the process started, by `time.perf_counter`.
    """

    def __init__(self, progress: Progress, started: float) -> None:
        self._before, self._started = progress.seconds, started
        self._first = self._last = progress.step
        self._began = self._since = time.perf_counter()
        self._units = 0

    def add(self, progress: Progress, units: int) -> None:
        """One more step, of so many units."""
        self._units += units
        progress.seconds = self._before + time.perf_counter() - self._started

    @property
    def speed(self) -> float:
        """Units a second since the last evaluation."""
        return self._units / (time.perf_counter() - self._since)

    def seconds_left(self, progress: Progress, steps: int) -> float:
        """Until a run of so many steps ends."""
        return (time.perf_counter() - self._began) / (progress.step - self._first) * (steps - progress.step)

    def evaluated(self, progress: Progress) -> tuple[float, float]:
        """Seconds a step since the last evaluation and in this sitting, both with their share of evaluations."""
        now = time.perf_counter()
        progress.seconds = self._before + now - self._started
        lately, usually = (now - self._since) / (progress.step - self._last), now - self._began
        usually /= progress.step - self._first
        self._since, self._last, self._units = now, progress.step, 0
        return lately, usually
