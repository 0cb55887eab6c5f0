"""Length of a run: number of steps, learning-rate schedule, and the steps that fit into a time budget.

A run with a time budget measures the time of a step first, and adjusts its number of steps after each evaluation. The
results are written to the run file, so that a resumed run has the same learning rates.
"""

import math
import time
from typing import Any, final

from regard.errors import ConfigError
from regard.models.recipes import learning_rate_of
from regard.models.registry import MODELS
from regard.train.distributed import Group
from regard.train.options import TrainOptions
from regard.train.progress import Progress
from regard.train.report import Report
from regard.train.run_file import RunFile
from regard.train.schedule import Schedule
from regard.train.trainer import Trainer

EVALUATIONS = 20  # default number of evaluations in a run
MIN_STEPS_BETWEEN = 50  # default minimum of steps between evaluations
EVALUATION_SHARE = 0.1  # maximum share of a time budget for evaluations, which are made fewer
EPOCHS = 10  # default length
FEW_EPOCHS = 3  # from random weights: fewer make a time budget too short, which is reported
MEASURED_STEPS = 12
SPARE = 0.97  # share of the time budget that is planned


@final
class Length:
    """Number of steps and learning-rate schedule of a run.

    Args:
        options: options of the run.
        run_file: run file of the run.
        trainer: trainer whose steps are measured.
        report: report for messages.
        started: start of the process, by `time.perf_counter`.
        state: state of the checkpoint that the run resumes from; None for a new run.

    Raises:
        ConfigError: a time budget too short for a step, or an extension to a length that the run has passed.
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
        """Number of steps as planned now."""
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

    def refit(self, progress: Progress, *, recent: float, overall: float, evaluation: float) -> None:
        """Fit the number of steps to the time left, once after each evaluation.

        Args:
            progress: progress of the run.
            recent: seconds per step since the last evaluation, with the step's share of an evaluation.
            overall: seconds per step since the process started, likewise.
            evaluation: seconds per evaluation.
        """
        number = progress.step
        if self.options.minutes is None or number >= self.steps:
            return
        if number not in (fits := self._fits()):
            left = SPARE * 60 * self.options.minutes - progress.seconds - evaluation  # of the last one
            more = max(0, int(left / recent))
            if 0 < more < self.every:  # the last fit: the machine may be faster again
                more = int(left / min(recent, overall))
            fits[number] = self.group.broadcast(number + more)
            self.run_file.put(write=self.group.leads, fits=fits)
        self.schedule = self.schedule.refit(number, fits[number])

    def _fits(self) -> dict[int, int]:
        """Fitted numbers of steps, by the step at which they were fitted."""
        return {int(step): steps for step, steps in self.run_file.get("fits", {}).items()}

    def _lengths(self, state: dict[str, Any] | None) -> tuple[int, int]:
        """Steps between evaluations and in the run; with a time budget, they are measured once and written down."""
        options, broadcast = self.options, self.group.broadcast
        planned = broadcast(self.run_file.get("steps", 0))
        every = broadcast(self.run_file.get("evaluate_every", 0))
        extended = broadcast(bool(planned) and self.run_file.has_new_length)
        fits: dict[str, int] = {} if extended else broadcast(self.run_file.get("fits", {}))
        steps = 0 if extended else planned
        if not steps and options.minutes is not None:
            if extended and state is not None:
                steps = broadcast(self._steps_at_pace(options.minutes, state))
            else:
                steps, every = map(broadcast, self._steps_in(options.minutes))
        elif not steps and options.steps is not None:
            steps = options.steps
        elif not steps:
            epochs = EPOCHS if options.epochs is None else options.epochs
            steps = max(1, round(epochs * self.trainer.steps_per_epoch))
        done = 0 if state is None else state["step"]
        if extended and steps <= done:
            raise ConfigError(
                f"{self.run_file.folder} has taken {done:,} steps; the new length is {steps:,}: give a greater one"
            )
        if steps != planned:
            self._report_length(steps, planned)
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
            peak = self._default_rate() if options.start is None else self.trainer.task.fine_tuning_rate
        return Schedule(kind=options.schedule, peak=peak, warmup=warmup, steps=steps)

    def _default_rate(self) -> float:
        """Peak learning rate of the architecture."""
        config = getattr(self.trainer.module, "config", None)
        name = next((name for name, (kind, _) in MODELS.items() if type(config) is kind), "")
        return learning_rate_of(name)

    def _report_length(self, steps: int, before: int) -> None:
        """Report the number of steps of an extended run or of a time budget, which the options don't name."""
        if before:
            self.report.say(
                f"extended from {before:,} to {steps:,} steps; from here on, the learning rates are those of a run of "
                "that length"
            )
        if self.options.minutes is None:
            return
        epochs = steps / self.trainer.steps_per_epoch
        self.report.say(f"{self.options.minutes:g} minutes: about {steps:,} steps, {epochs:.1f} epochs")
        if self.options.start is None and epochs < FEW_EPOCHS:
            self.report.say(
                f"warning: {epochs:.1f} epochs are few for random weights; give more --minutes, a smaller --size, or a "
                "model to fine-tune with --from"
            )
        elif epochs < 1:
            self.report.say(f"warning: {epochs:.0%} of the rows will be seen; give more --minutes to see all of them")

    def _steps_at_pace(self, minutes: float, state: dict[str, Any]) -> int:
        """Number of steps of a resumed run that fits into the time budget at the measured pace."""
        left = SPARE * 60 * minutes - state["seconds"] - (time.perf_counter() - self.started)
        return int(state["step"] + max(0.0, left) * state["step"] / max(state["seconds"], 1e-9))

    def _steps_in(self, minutes: float) -> tuple[int, int]:
        """Number of steps that fits into a time budget, and steps between evaluations, from measured times."""
        self.report.progress("measuring the time of a step")
        step = self.trainer.seconds_per_step(MEASURED_STEPS)
        start = time.perf_counter()
        self.trainer.evaluate()
        evaluation = time.perf_counter() - start
        left = SPARE * 60 * minutes - (time.perf_counter() - self.started) - evaluation  # of the last one
        if left < step:
            raise ConfigError(
                f"minutes={minutes:g} leaves no time to train: a step takes {step:.1f} s and evaluation "
                f"{evaluation:.0f} s; give more minutes"
            )
        if self.options.evaluate_every is not None:
            return max(1, int(left / (step + evaluation / self.options.evaluate_every))), self.options.evaluate_every
        evaluations = min(EVALUATIONS, max(1, int(EVALUATION_SHARE * left / evaluation)))
        steps = max(1, int((left - (evaluations - 1) * evaluation) / step))
        return steps, max(MIN_STEPS_BETWEEN, math.ceil(steps / evaluations))
