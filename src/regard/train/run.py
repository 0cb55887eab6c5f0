"""A training run, from a user's files to a folder that explains itself.

    config.json, tokenizer.json, model.safetensors    the best model so far, as `regard.load` reads it
    metrics.jsonl                                     metrics by step
    data/                                             the records as rows of numbers
    checkpoints/                                      what a run that was stopped resumes from

The same command started again resumes from the newest whole checkpoint, and ends with the same weights as if it had not
been stopped; a run of so many minutes may fit its number of steps otherwise after the stop.
"""

import shutil
import sys
import time
from contextlib import nullcontext
from pathlib import Path
from signal import SIGINT
from typing import final

import torch

from regard.errors import CheckpointError, ConfigError
from regard.tasks.load import load
from regard.tasks.registry import of_pictures, task_class
from regard.tasks.task import Task
from regard.train import checkpoint
from regard.train.device import pick_device, pick_precision
from regard.train.distributed import Group, joined
from regard.train.interrupt import ending, interrupts
from regard.train.length import Length
from regard.train.lock import locked
from regard.train.options import TrainOptions, to_plain
from regard.train.progress import Pace, Progress
from regard.train.report import Report, duration, perplexity
from regard.train.run_file import RunFile
from regard.train.trainer import Trainer, make_optimizer

CHECKPOINTS, DATA = "checkpoints", "data"
# Options that a model to start from has decided.
OF_MODEL = ("model", "size", "model_settings", "attention", "dropout", "vocab_size")


def train(options: TrainOptions) -> Path:
    """Train a model on a user's records; started again with the same options, resume.

    Args:
        options: of the run.

    Returns:
        The run's folder, which `regard.load` reads.

    Raises:
        ConfigError: options that don't go together, or other ones than the folder was begun with.
        DataError: records that cannot be used.
        CheckpointError: a model to start from that cannot be read, or a disk that cannot be written.
    """
    started = time.perf_counter()
    if options.threads is not None:
        torch.set_num_threads(options.threads)
    device = pick_device(options.device)
    with joined(device) as group:
        return _Run(options, device, group, started).run()


def make_task(options: TrainOptions) -> Task:
    """The task that the options name, with the model that it starts from.

    Raises:
        ConfigError: an unknown task, options that it does not have, or a model to start from that is of another job.
        CheckpointError: a model to start from that cannot be read.
    """
    kind = task_class(of_pictures(options.task, options.model, options.files, options.start))
    if options.start is None:
        return kind(options)
    plain = to_plain(options)
    if given := {name: plain[name] for name in OF_MODEL if name in plain}:
        named = ", ".join(f"{name}={x!r}" for name, x in given.items())
        raise ConfigError(f"start={options.start!r} has a model and a tokenizer already, which {named} cannot change")
    return kind(options, load(options.start))


@final
class _Run:
    """One sitting of a run."""

    def __init__(self, options: TrainOptions, device: torch.device, group: Group, started: float) -> None:
        self.options, self.device, self.group, self.started = options, device, group, started
        self.folder = Path(options.out)

    def run(self) -> Path:
        """Everything, from the files to the trained model."""
        self.task = make_task(self.options)
        self.run_file = RunFile(self.folder, self.options)
        if self.run_file.is_finished:
            self._check_files()
            if self.group.leads:
                sys.stderr.write(f"{self.folder} is finished; `regard info {self.folder}` describes it\n")
            return self.folder
        with locked(self.folder) if self.group.leads else nullcontext():
            return self._sit()

    def _sit(self) -> Path:
        """One sitting, in a folder that no other process trains in."""
        for left in self.folder.glob(".writing-*"):  # of a sitting that was killed
            shutil.rmtree(left, ignore_errors=True)
        self.newest = checkpoint.newest(self.folder / CHECKPOINTS)
        state = None if self.newest is None else self.newest.state
        stream = sys.stderr if self.group.leads else None
        since = 0 if state is None else state["step"]
        with Report(self.folder, since=since, tensorboard=self.options.tensorboard, stream=stream) as self.report:
            self._prepare()
            self._check_data()
            trainer = self._trainer()
            length = Length(self.options, self.run_file, trainer, self.report, started=self.started, state=state)
            self.run_file.put(write=self.group.leads, data=dict(self.task.digests))
            try:
                self._train(trainer, length)
            except OSError as error:
                raise CheckpointError(
                    f"{self.folder} cannot be written: {error.strerror or error}; what was written before is whole, "
                    "and the same command resumes from there"
                ) from error
        return self.folder

    def _check_files(self) -> None:
        """Raise if a run that is finished was trained on files of another content."""
        if "-" not in self.options.files and not self.task.is_prepared(self.folder / DATA):
            raise ConfigError(
                f"{self.folder} is finished, and was trained on other records than those of "
                f"{', '.join(self.options.files or self.options.parallel or ())}; give another --out, or fine-tune it "
                f"with --from {self.folder}"
            )

    def _prepare(self) -> None:
        """The records as rows; the first process makes them, the others find them made."""
        if self.group.size > 1 and "-" in self.options.files:
            raise ConfigError(f"files={self.options.files}: several processes cannot share standard input; give a file")
        if not self.group.leads:
            self.group.wait()
        self.task.prepare(self.folder / DATA, lambda what, rows: self.report.progress(f"{what}: {rows:,}"))
        if self.group.leads:
            self.group.wait()
        for line in self.task.notes:
            self.report.say(line)
        self.report.say(f"data: {self.task.summary}")

    def _check_data(self) -> None:
        """Raise unless the rows are those that the run was begun with, if it has come to a checkpoint."""
        digests = dict(self.task.digests)
        before = self.run_file.get("data", digests)
        if self.newest is not None and before != digests:
            raise ConfigError(
                f"{self.folder} was begun with other records (their digests were {before}, now {digests}); give those, "
                f"or another --out, or fine-tune it with --from {self.folder}"
            )

    def _trainer(self) -> Trainer:
        torch.manual_seed(self.options.seed)
        module = self.task.build().to(self.device)
        count = sum(p.numel() for p in module.parameters())
        precision = pick_precision(self.options.precision, self.device)
        named = str(precision).removeprefix("torch.")
        self.report.say(
            f"model: {type(module).__name__}, {count:,} parameters; {named} on {self.device}, "
            f"{torch.get_num_threads()} threads" + (f", {self.group.size} processes" if self.group.size > 1 else "")
        )
        optimizer = make_optimizer(module, self.options)
        return Trainer(self.task, module, optimizer, self.options, self.group, precision)

    def _train(self, trainer: Trainer, length: Length) -> None:
        progress = self._restored(trainer)
        pace = Pace(progress, self.started)
        with interrupts() as received:
            while progress.step < length.steps and not self._is_enough(progress):
                batches, number = trainer.next_batches(progress.position), progress.step + 1
                units = sum(map(self.task.units, batches))
                rate = length.schedule.rate(number)
                progress.loss += trainer.step(batches, number, rate) * units
                progress.step, progress.counted, progress.units = (
                    number,
                    progress.counted + units,
                    progress.units + units,
                )
                pace.add(progress, units)
                self._show_progress(progress, pace, length.steps)
                if number % length.every == 0 or number == length.steps:
                    began = time.perf_counter()
                    self._evaluate(trainer, progress, speed=pace.speed, rate=rate)
                    evaluation = time.perf_counter() - began
                    lately, usually = pace.evaluated(progress)
                    length.refit(progress, lately=lately, usually=usually, evaluation=evaluation)
                    progress.loss, progress.counted = 0.0, 0
                signal = self.group.first_says(received[0] if received else 0)
                ends = number == length.steps or self._is_enough(progress)
                if number % self.options.checkpoint_every == 0 or ends or signal:
                    self._checkpoint(trainer, progress)
                if signal:
                    message = f"stopped at step {number:,} of {length.steps:,}; the same command resumes from there"
                    if signal != SIGINT:  # whose exception bears it
                        self.report.say(message)
                    raise ending(signal, message)
        self._finish(trainer, progress)

    def _restored(self, trainer: Trainer) -> Progress:
        """The progress of the checkpoint, whose tensors are loaded; or that of a new run."""
        if self.newest is None:
            return Progress()
        checkpoint.read(self.newest, trainer.module, trainer.optimizer)
        progress = Progress.from_plain(self.newest.state)
        averaged = self.run_file.get("averaged", None)  # the mean of checkpoints, which no checkpoint tells of
        if averaged is not None and self._is_better({self.task.best.metric: averaged}, progress):
            progress.best, progress.best_step = averaged, progress.step
        self.report.say(f"resuming from step {progress.step:,}, {self.newest.folder}")
        return progress

    def _is_enough(self, progress: Progress) -> bool:
        return self.options.patience is not None and progress.since_best >= self.options.patience

    def _show_progress(self, progress: Progress, pace: Pace, steps: int) -> None:
        loss = progress.mean_loss
        shown = f"  perplexity {perplexity(loss):.1f}" if self.task.perplexity else ""
        self.report.progress(
            f"step {progress.step:,}/{steps:,}  loss {loss:.3f}{shown}  {pace.speed:,.0f} {self.task.unit}/s  "
            f"{duration(pace.seconds_left(progress, steps))} left"
        )

    def _evaluate(self, trainer: Trainer, progress: Progress, *, speed: float, rate: float) -> None:
        """Measure on the held-out rows, show a sample, and keep the model if it is the best so far."""
        metrics, loss = trainer.evaluate(), progress.mean_loss
        valid = {f"valid_{name}": round(x, 5) for name, x in metrics.items()}
        self.report.record(
            progress.step, loss=round(loss, 5), **valid, **{self.task.unit: progress.units},
            **{f"{self.task.unit}_per_second": round(speed, 1)}, learning_rate=rate, seconds=round(progress.seconds, 1),
        )  # fmt: skip
        better = self._is_better(metrics, progress)
        if better:
            progress.best, progress.best_step, progress.since_best = metrics[self.task.best.metric], progress.step, 0
            self._keep(trainer, progress, metrics)
        else:
            progress.since_best += 1
        shown = ", ".join(f"{name} {x:.3f}" for name, x in metrics.items())
        more = f" (perplexity {perplexity(metrics['loss']):.2f})" if self.task.perplexity else ""
        self.report.say(
            f"step {progress.step:,}: loss {loss:.3f}; held out: {shown}{more}{', the best so far' if better else ''}; "
            f"{speed:,.0f} {self.task.unit}/s, {duration(progress.seconds)}"
        )
        if self.group.leads:
            for label, text in self.task.sample(trainer.module, progress.step):
                self.report.say(f"  {label}: {text}")

    def _is_better(self, metrics: dict[str, float], progress: Progress) -> bool:
        metric, higher = self.task.best
        if progress.best is None:
            return True
        return metrics[metric] > progress.best if higher else metrics[metric] < progress.best

    def _keep(self, trainer: Trainer, progress: Progress, metrics: dict[str, float]) -> None:
        """Write the model as `regard.load` reads it."""
        if not self.group.leads:
            return
        training = {
            "options": self.run_file.options, "step": progress.step, self.task.unit: progress.units,
            "minutes": round(progress.seconds / 60, 1), **{f"valid_{name}": x for name, x in metrics.items()},
            "threads": torch.get_num_threads(), "torch": torch.__version__,
        }  # fmt: skip
        self.task.save(self.folder, trainer.module, training)

    def _checkpoint(self, trainer: Trainer, progress: Progress) -> None:
        if self.group.leads:
            folder = self.folder / CHECKPOINTS
            checkpoint.write(folder, trainer.module, trainer.optimizer, progress.to_plain())
            checkpoint.prune(folder, keep=self.options.average, every=self.options.checkpoint_every)
        self.group.wait()

    def _finish(self, trainer: Trainer, progress: Progress) -> None:
        """Average the last checkpoints, if that is asked for and better; then write down that the run is finished."""
        if self.options.average > 1:
            every = self.options.checkpoint_every  # one that a signal made in between is not of the run's own
            last = [
                c for c in checkpoint.whole(self.folder / CHECKPOINTS)
                if c.state["step"] % every == 0 or c.state["step"] == progress.step
            ][: self.options.average]  # fmt: skip
            checkpoint.average(last, trainer.module)
            metrics = trainer.evaluate()
            self.report.say(f"mean of the last {len(last)} checkpoints: held out {metrics[self.task.best.metric]:.3f}")
            if self._is_better(metrics, progress):
                progress.best, progress.best_step = metrics[self.task.best.metric], progress.step
                self._keep(trainer, progress, metrics)
                self.run_file.put(write=self.group.leads, averaged=progress.best)
        self.run_file.put(write=self.group.leads, finished=True)
        self.report.say(
            f"finished in {duration(progress.seconds)}: held out {self.task.best.metric} {progress.best:.3f} at step "
            f"{progress.best_step:,}; {self.folder}"
        )
