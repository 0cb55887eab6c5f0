"""The length of a run: its steps, the learning rate of each, and the steps that fit into a time budget.

A run of so many minutes measures the time of a step first, and fits its steps to the time left after each evaluation;
what it found is written down, so that a resumed run has the same learning rates.
"""

import math
import time
from typing import Any, final

from regard.errors import ConfigError
from regard.train.distributed import Group
from regard.train.options import TrainOptions
from regard.train.progress import Progress
from regard.train.report import Report
from regard.train.run_file import RunFile
from regard.train.schedule import Schedule
from regard.train.trainer import Trainer

EVALUATIONS = 20  # in a run, if `evaluate_every` says nothing
MIN_STEPS_BETWEEN = 50  # evaluations, likewise
EVALUATION_SHARE = 0.1  # of the minutes, at most, for which there may be fewer
EPOCHS = 10  # if nothing is said of the run's length
FEW_EPOCHS = 3  # from random weights: of these and fewer a run of minutes warns
MEASURED_STEPS = 12
SPARE = 0.97  # share of the minutes that is planned
PEAK, FINE_TUNING_PEAK = 1e-3, 2e-4


@final
class Length:
    """Steps and learning rates of a run.

    Args:
        options: of the run.
        plan: what the run's folder was begun with.
        trainer: whose steps are measured.
        report: for messages.
        started: when the process started, by `time.perf_counter`.
        state: of the checkpoint that the run goes on from; None at its beginning.

    Raises:
        ConfigError: minutes without time for a step, or an extension that is none.
    """

    def __init__(
        self,
        options: TrainOptions,
        run_file: RunFile,
        trainer: Trainer,
        report: Report,
        *,
        started: float,
        state: dict[str, Any] | None,
    ) -> None:
        self.options, self.run_file, self.trainer, self.report, self.started = (
            options,
            run_file,
            trainer,
            report,
            started,
        )
        self.group: Group = trainer.group
        self.every, steps = self._lengths(state)
        self.schedule = self._schedule(steps)
        for step, fitted in self._fits().items():
            if state is not None and step <= state["step"]:
                self.schedule = self.schedule.refit(step, fitted)

    @property
    def steps(self) -> int:
        """Steps of the run, as far as is known."""
        return self.schedule.steps

    @property
    def summary(self) -> str:
        """One line about the length, for the user."""
        options, steps = self.options, f"{self.steps:,} steps"
        if options.minutes is not None:
            steps = f"about {steps} in {options.minutes:g} minutes"
        elif options.steps is None:
            steps += f", {EPOCHS if options.epochs is None else options.epochs:g} epochs"
        patience = "" if options.patience is None else f", patience {options.patience}"
        return f"{steps}; evaluated every {self.every:,}{patience}; checkpoint every {options.checkpoint_every:,}"

    def refit(self, progress: Progress, *, lately: float, usually: float, evaluation: float) -> None:
        """Fit the steps to the minutes that are left, once after each evaluation.

        Args:
            progress: of the run.
            lately: seconds a step since the last evaluation, with its share of the evaluation.
            usually: likewise, in this sitting.
            evaluation: seconds of one.
        """
        number = progress.step
        if self.options.minutes is None or number >= self.steps:
            return
        if number not in (fits := self._fits()):
            left = SPARE * 60 * self.options.minutes - progress.seconds - evaluation  # the last one is certain
            more = max(0, int(left / lately))
            if 0 < more < self.every:  # the last fit, and a slow stretch may be over
                more = int(left / min(lately, usually))
            fits[number] = self.group.first_says(number + more)
            self.run_file.put(write=self.group.leads, fits=fits)
        self.schedule = self.schedule.refit(number, fits[number])

    def _fits(self) -> dict[int, int]:
        """Steps of the run as fitted, by the step at which they were, in order."""
        return {int(step): steps for step, steps in self.run_file.get("fits", {}).items()}

    def _lengths(self, state: dict[str, Any] | None) -> tuple[int, int]:
        """Steps between evaluations, and of the run: measured once where minutes are given, and written down."""
        options, first_says = self.options, self.group.first_says
        planned = first_says(self.run_file.get("steps", 0))
        every = first_says(self.run_file.get("evaluate_every", 0))
        extended = first_says(bool(planned) and self.run_file.has_new_length)
        fits: dict[str, int] = {} if extended else first_says(self.run_file.get("fits", {}))
        steps = 0 if extended else planned
        if not steps and options.minutes is not None:
            if extended and state is not None:
                steps = first_says(self._steps_at_pace(options.minutes, state))
            else:
                steps, every = map(first_says, self._steps_in(options.minutes))
        elif not steps and options.steps is not None:
            steps = options.steps
        elif not steps:
            epochs = EPOCHS if options.epochs is None else options.epochs
            steps = max(1, round(epochs * self.trainer.steps_per_epoch))
        taken = 0 if state is None else state["step"]
        if extended and steps <= taken:
            raise ConfigError(
                f"{self.run_file.folder} has taken {taken:,} steps; the new length is {steps:,}: give a greater one"
            )
        if steps != planned:
            self._say_length(steps, planned)
        every = every or options.evaluate_every or max(MIN_STEPS_BETWEEN, steps // EVALUATIONS)
        self.run_file.put(write=self.group.leads, steps=steps, evaluate_every=every, fits=fits, finished=False)
        return every, steps

    def _schedule(self, steps: int) -> Schedule:
        options = self.options
        warmup = Schedule.default_warmup(steps) if options.warmup is None else options.warmup
        peak = options.learning_rate
        if peak is None and options.schedule == "paper":
            size = getattr(getattr(self.trainer.module, "config", None), "embed_dim", 512)
            peak = (size * max(1, warmup)) ** -0.5
        elif peak is None:
            peak = PEAK if options.start is None else FINE_TUNING_PEAK
        return Schedule(kind=options.schedule, peak=peak, warmup=warmup, steps=steps)

    def _say_length(self, steps: int, before: int) -> None:
        """How long the run will be, where that is not what the options say."""
        if before:
            self.report.say(
                f"extended from {before:,} to {steps:,} steps; the learning rate goes on as that of a run of so many"
            )
        if self.options.minutes is None:
            return
        epochs = steps / self.trainer.steps_per_epoch
        self.report.say(f"{self.options.minutes:g} minutes: about {steps:,} steps, {epochs:.1f} epochs")
        if self.options.start is None and epochs < FEW_EPOCHS:
            self.report.say(
                f"warning: {epochs:.1f} epochs are few for random weights; give more --minutes, a smaller --size, or a "
                "model to start from with --from"
            )
        elif epochs < 1:
            self.report.say(f"warning: {epochs:.0%} of the rows will be seen; give more --minutes to see all of them")

    def _steps_at_pace(self, minutes: float, state: dict[str, Any]) -> int:
        """Steps of a run that has taken some, if it goes on at their pace until it has taken so many minutes."""
        left = SPARE * 60 * minutes - state["seconds"] - (time.perf_counter() - self.started)
        return int(state["step"] + max(0.0, left) * state["step"] / max(state["seconds"], 1e-9))

    def _steps_in(self, minutes: float) -> tuple[int, int]:
        """How many steps fit, and how many of them lie between evaluations."""
        self.report.progress("measuring the time of a step")
        step = self.trainer.seconds_per_step(MEASURED_STEPS)
        began = time.perf_counter()
        self.trainer.evaluate()
        evaluation = time.perf_counter() - began
        left = SPARE * 60 * minutes - (time.perf_counter() - self.started) - evaluation  # the last one is certain
        if left < step:
            raise ConfigError(
                f"minutes={minutes:g} leaves no time to train: a step takes {step:.1f} s and evaluation "
                f"{evaluation:.0f} s; give more"
            )
        if self.options.evaluate_every is not None:
            return max(1, int(left / (step + evaluation / self.options.evaluate_every))), self.options.evaluate_every
        evaluations = min(EVALUATIONS, max(1, int(EVALUATION_SHARE * left / evaluation)))
        steps = max(1, int((left - (evaluations - 1) * evaluation) / step))
        return steps, max(MIN_STEPS_BETWEEN, math.ceil(steps / evaluations))
