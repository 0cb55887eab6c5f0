"""Training run, from a user's files to a folder with the model, its data and its metrics.

    config.json, tokenizer.json, model.safetensors    best model so far, which `regard.load` reads
    metrics.jsonl                                     metrics by step
    data/                                             records as rows of numbers
    checkpoints/                                      states that an interrupted run resumes from

The same command, run again, resumes from the newest intact checkpoint and ends with the same weights as without the
interruption; a run with a time budget may fit its number of steps differently after it.
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
from regard.tasks.registry import job_of, task_class
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
# Options that a model to start from determines.
MODEL_OPTIONS = ("model", "size", "model_settings", "attention", "dropout", "vocab_size")


def train(options: TrainOptions) -> Path:
    """Train a model on a user's records, or resume a run with the same options.

    Args:
        options: options of the run.

    Returns:
        The folder of the run, which `regard.load` reads.

    Raises:
        ConfigError: options that exclude each other, or that differ from those the run was started with.
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
    """Task that the options name, with the model that it starts from.

    Raises:
        ConfigError: an unknown task, options that it does not have, or a model to start from of another job.
        CheckpointError: a model to start from that cannot be read.
    """
    kind = task_class(job_of(options.task, options.model, options.files, options.start))
    if options.start is None:
        return kind(options)
    plain = to_plain(options)
    if conflicting := [f"{name}={plain[name]!r}" for name in MODEL_OPTIONS if name in plain]:
        raise ConfigError(
            f"start={options.start!r} has a model and a tokenizer already, which {', '.join(conflicting)} "
            "cannot change; leave them out"
        )
    return kind(options, load(options.start))


@final
class _Run:
    """Run of one process, from its start to its end or interruption."""

    def __init__(self, options: TrainOptions, device: torch.device, group: Group, started: float) -> None:
        self.options, self.device, self.group, self.started = options, device, group, started
        self.folder = Path(options.out)

    def run(self) -> Path:
        """Prepare the data and train, unless the run is finished; the folder of the run."""
        self.task = make_task(self.options)
        self.run_file = RunFile(self.folder, self.options)
        if self.run_file.is_finished:
            self._check_files()
            if self.group.leads:
                sys.stderr.write(f"{self.folder} is finished; `regard info {self.folder}` describes it\n")
            return self.folder
        with locked(self.folder) if self.group.leads else nullcontext():
            return self._run_locked()

    def _run_locked(self) -> Path:
        """Train in the folder, whose lock this process holds."""
        for unfinished in self.folder.glob(".writing-*"):  # of a process that was killed
            shutil.rmtree(unfinished, ignore_errors=True)
        self.newest = checkpoint.newest(self.folder / CHECKPOINTS)
        state = None if self.newest is None else self.newest.state
        stream = sys.stderr if self.group.leads else None
        since = 0 if state is None else state["step"]
        with Report(self.folder, since=since, tensorboard=self.options.tensorboard, stream=stream) as self.report:
            self._prepare()
            self._check_data()
            trainer = self._trainer()
            length = Length(self.options, self.run_file, trainer, self.report, started=self.started, state=state)
            self.report.close_bar()
            self.report.table(self._description(trainer, length))
            self.run_file.put(write=self.group.leads, data=dict(self.task.digests))
            try:
                self._train(trainer, length)
            except OSError as error:
                raise CheckpointError(
                    f"{self.folder} cannot be written: {error.strerror or error}; earlier files are intact, and the "
                    "same command resumes from them"
                ) from error
        return self.folder

    def _check_files(self) -> None:
        """Raise ConfigError if a finished run was trained on other records than the options name."""
        if "-" not in self.options.files and not self.task.is_prepared(self.folder / DATA):
            raise ConfigError(
                f"{self.folder} is finished, and was trained on other records than those of "
                f"{', '.join(self.options.files or self.options.parallel or ())}; give another --out, or fine-tune the "
                f"model with --from {self.folder}"
            )

    def _prepare(self) -> None:
        """Turn the records into rows on disk in the first process; the others wait and then read them."""
        if self.group.size > 1 and "-" in self.options.files:
            raise ConfigError(
                f"files={self.options.files}: several processes cannot share standard input; give a file instead"
            )
        if not self.group.leads:
            self.group.wait()
        self.task.prepare(self.folder / DATA, lambda action, rows: self.report.progress(f"{action}: {rows:,}"))
        if self.group.leads:
            self.group.wait()
        for line in self.task.notes:
            self.report.say(line)

    def _check_data(self) -> None:
        """Raise ConfigError if the run has a checkpoint and its rows have changed since."""
        digests = dict(self.task.digests)
        before = self.run_file.get("data", digests)
        if self.newest is not None and before != digests:
            raise ConfigError(
                f"{self.folder} was started with other records (their digests were {before}, now {digests}); give "
                f"those, or another --out, or fine-tune the model with --from {self.folder}"
            )

    def _trainer(self) -> Trainer:
        torch.manual_seed(self.options.seed)
        module = self.task.build().to(self.device)
        precision = pick_precision(self.options.precision, self.device)
        optimizer = make_optimizer(module, self.options)
        return Trainer(self.task, module, optimizer, self.options, self.group, precision)

    def _description(self, trainer: Trainer, length: Length) -> dict[str, str]:
        """Description of the run, by subject, printed before it starts."""
        module, start, schedule = trainer.module, self.options.start, length.schedule
        count, threads = sum(p.numel() for p in module.parameters()), torch.get_num_threads()
        precision = str(trainer.precision).removeprefix("torch.")
        device = f"{self.device}, {precision}, {threads} thread{'' if threads == 1 else 's'}"
        return {
            "task": self.task.name,
            "data": self.task.summary,
            "model": f"{type(module).__name__}, {count:,} parameters" + (f", from {start}" if start else ""),
            "device": device + (f", {self.group.size} processes" if self.group.size > 1 else ""),
            "length": length.summary,
            "learning rate": f"{schedule.peak:.2g} after {schedule.warmup:,} steps, {schedule.kind}",
            "folder": str(self.folder),
        }

    def _train(self, trainer: Trainer, length: Length) -> None:
        progress = self._restored(trainer)
        pace = Pace(progress, self.started)
        with interrupts() as received:
            while progress.step < length.steps and not self._is_out_of_patience(progress):
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
                    start = time.perf_counter()
                    self._evaluate(trainer, progress, speed=pace.speed, rate=rate)
                    evaluation = time.perf_counter() - start
                    recent, overall = pace.evaluated(progress)
                    length.refit(progress, recent=recent, overall=overall, evaluation=evaluation)
                    progress.loss, progress.counted = 0.0, 0
                signal = self.group.broadcast(received[0] if received else 0)
                ends = number == length.steps or self._is_out_of_patience(progress)
                if number % self.options.checkpoint_every == 0 or ends or signal:
                    self._checkpoint(trainer, progress)
                if signal:
                    message = f"stopped at step {number:,} of {length.steps:,}; the same command resumes from there"
                    if signal != SIGINT:  # the exception has the message
                        self.report.say(message)
                    raise ending(signal, message)
        self._finish(trainer, progress)

    def _restored(self, trainer: Trainer) -> Progress:
        """Progress of the newest checkpoint, whose tensors are loaded; without one, that of a new run."""
        if self.newest is None:
            return Progress()
        checkpoint.read(self.newest, trainer.module, trainer.optimizer)
        progress = Progress.from_plain(self.newest.state)
        averaged = self.run_file.get("averaged", None)  # metric of the mean of checkpoints, which no checkpoint stores
        if averaged is not None and self._is_better({self.task.best.metric: averaged}, progress):
            progress.best, progress.best_step = averaged, progress.step
        self.report.say(f"resuming from step {progress.step:,}, {self.newest.folder}")
        return progress

    def _is_out_of_patience(self, progress: Progress) -> bool:
        return self.options.patience is not None and progress.since_best >= self.options.patience

    def _show_progress(self, progress: Progress, pace: Pace, steps: int) -> None:
        self.report.progress(
            f"step {progress.step:,}/{steps:,}  loss {progress.mean_loss:.3f}  {pace.speed:,.0f} {self.task.unit}/s  "
            f"{duration(pace.seconds_left(progress, steps))} left",
            done=progress.step,
            total=steps,
        )

    def _evaluate(self, trainer: Trainer, progress: Progress, *, speed: float, rate: float) -> None:
        """Evaluate on the held-out rows, report a sample, and save the model if it is the best so far."""
        metrics, loss = trainer.evaluate(), progress.mean_loss
        valid = {f"valid_{name}": round(x, 5) for name, x in metrics.items()}
        self.report.record(
            progress.step, loss=round(loss, 5), **valid, **{self.task.unit: progress.units},
            **{f"{self.task.unit}_per_second": round(speed, 1)}, learning_rate=rate, seconds=round(progress.seconds, 1),
        )  # fmt: skip
        better = self._is_better(metrics, progress)
        if better:
            progress.best, progress.best_step, progress.since_best = metrics[self.task.best.metric], progress.step, 0
            self._save(trainer, progress, metrics)
        else:
            progress.since_best += 1
        scores = ", ".join(f"{name} {x:.3f}" for name, x in metrics.items())
        perplexity_note = f" (perplexity {perplexity(metrics['loss']):.2f})" if self.task.perplexity else ""
        best_note = ", the best so far" if better else ""
        self.report.say(
            f"step {progress.step:,}: loss {loss:.3f}; held out: {scores}{perplexity_note}{best_note}; "
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

    def _save(self, trainer: Trainer, progress: Progress, metrics: dict[str, float]) -> None:
        """Save the model in the folder of the run, for `regard.load`."""
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
        """Average the last checkpoints if the options say so and that is better; then mark the run as finished."""
        if self.options.average > 1:
            every = self.options.checkpoint_every  # checkpoints that a signal caused in between don't count
            last = [
                c for c in checkpoint.whole(self.folder / CHECKPOINTS)
                if c.state["step"] % every == 0 or c.state["step"] == progress.step
            ][: self.options.average]  # fmt: skip
            checkpoint.average(last, trainer.module)
            metrics = trainer.evaluate()
            self.report.say(f"mean of the last {len(last)} checkpoints: held out {metrics[self.task.best.metric]:.3f}")
            if self._is_better(metrics, progress):
                progress.best, progress.best_step = metrics[self.task.best.metric], progress.step
                self._save(trainer, progress, metrics)
                self.run_file.put(write=self.group.leads, averaged=progress.best)
        self.run_file.put(write=self.group.leads, finished=True)
        self.report.say(
            f"finished in {duration(progress.seconds)}: held out {self.task.best.metric} {progress.best:.3f} at step "
            f"{progress.best_step:,}; {self.folder}"
        )
