"""A training run from files of pairs to a folder that explains itself.

    config.json, tokenizer.json, model.safetensors    the best model so far, as `regard.load` reads it
    metrics.jsonl                                     losses by step
    data/                                             the pairs as token ids
    checkpoints/                                      what a run that was stopped goes on from

The same command started again goes on where the newest whole checkpoint stands, and ends with the same weights as if
it had not been stopped; in a run of so many minutes, how many steps it has may be found otherwise after the stop.
"""

import dataclasses
import math
import shutil
import sys
import time
from contextlib import nullcontext
from pathlib import Path
from signal import SIGINT
from typing import Any, final

import numpy as np
import torch

from regard.data.files import shown_name
from regard.data.prepare import Prepared, is_prepared_from, prepare
from regard.data.tokenizer import Tokenizer
from regard.decode.generate import generate
from regard.decode.search import Greedy
from regard.errors import CheckpointError, ConfigError
from regard.models.registry import build
from regard.models.seq2seq import Seq2Seq, Vocabulary
from regard.train import checkpoint
from regard.train.alone import alone
from regard.train.distributed import Group, joined
from regard.train.interrupt import ending, interrupts
from regard.train.loop import Order, Progress, Trainer, make_optimizer
from regard.train.options import TrainOptions
from regard.train.plan import Plan
from regard.train.report import Report, duration, perplexity
from regard.train.schedule import Schedule
from regard.train.setup import model_config, pair_reader, pick_device, pick_precision, read_start, vocabulary_of
from regard.trained import folder as folders

CHECKPOINTS, DATA = "checkpoints", "data"
EVALUATIONS = 20  # in a run, if `evaluate_every` says nothing
LEAST_BETWEEN = 50  # steps between evaluations, likewise
EVALUATION_SHARE = 0.1  # of the minutes, at most, for which there may be fewer
EPOCHS = 10  # if nothing is said of the run's length
FEW_EPOCHS = 3  # from nothing: of these and fewer a run of minutes warns
MEASURED_STEPS = 12
SENTENCES = 48  # tokens of a text that may stay whole whatever the training's had
SPARE = 0.97  # share of the minutes that the plan fills
PEAK, FINE_TUNING_PEAK = 1e-3, 2e-4


def train(options: TrainOptions) -> Path:
    """Train a model on pairs of texts; started again with the same options, go on.

    Args:
        options: of the run.

    Returns:
        The run's folder, which `regard.load` reads.

    Raises:
        ConfigError: options that don't go together, or other ones than the folder was begun with.
        DataError: pairs that cannot be used.
        CheckpointError: a model to start from that cannot be read, or a disk that cannot be written.
    """
    started = time.perf_counter()
    if options.threads is not None:
        torch.set_num_threads(options.threads)
    device = pick_device(options.device)
    with joined(device) as group:
        return _Run(options, device, group, started).run()


@final
class _Run:
    """One sitting of a run."""

    def __init__(self, options: TrainOptions, device: torch.device, group: Group, started: float) -> None:
        self.options, self.device, self.group, self.started = options, device, group, started
        self.folder = Path(options.out)

    def run(self) -> Path:
        """Everything, from the files to the trained model."""
        model_config(self.options, Vocabulary(size=self.options.vocab_size))  # wrong names end here
        self.reader = pair_reader(self.options)
        self.valid = None if self.options.valid is None else (self.options.valid,)
        self.plan = Plan(self.folder, self.options)
        if self.plan.is_finished:
            self._check_files()
            if self.group.leads:
                sys.stderr.write(f"{self.folder} is finished; `regard info {self.folder}` tells of it\n")
            return self.folder
        with alone(self.folder) if self.group.leads else nullcontext():
            return self._sit()

    def _sit(self) -> Path:
        """One sitting, in a folder that no other process trains in."""
        for left in self.folder.glob(".writing-*"):  # of a sitting that was killed
            shutil.rmtree(left, ignore_errors=True)
        self.found = checkpoint.newest(self.folder / CHECKPOINTS)
        since = 0 if self.found is None else self.found.state["step"]
        stream = sys.stderr if self.group.leads else None
        with Report(self.folder, since=since, tensorboard=self.options.tensorboard, stream=stream) as self.report:
            first = read_start(self.options)
            self.data = self._prepare(first[1] if first else None)
            self._check_data()
            trainer = self._trainer(first[0] if first else None)
            order = Order(self.data.train, self.options)
            schedule = self._schedule(trainer, order)
            try:
                self._train(trainer, order, schedule)
            except OSError as error:
                raise CheckpointError(
                    f"{self.folder} cannot be written: {error.strerror or error}; what was written before is whole, "
                    "and the same command goes on from there"
                ) from error
        return self.folder

    def _check_files(self) -> None:
        """Raise if a run that is finished was trained on files of another content."""
        options = self.options
        if "-" not in options.files and not is_prepared_from(
            self.folder / DATA, self.reader, valid=self.valid, skip_bad_rows=options.skip_bad_rows
        ):
            raise ConfigError(
                f"{self.folder} is finished, and was trained on other pairs than those of "
                f"{', '.join(options.files or options.parallel or ())}; give another --out, or fine-tune it with "
                f"--from {self.folder}"
            )

    def _check_data(self) -> None:
        """Raise unless the pairs are those that the run was begun with, if it has come to a checkpoint."""
        named = {"tokenizer": self.data.tokenizer, "train": self.data.train, "valid": self.data.valid}
        self.fingerprints = {name: x.fingerprint for name, x in named.items()}  # type: ignore[attr-defined]
        before = self.plan.get("data", self.fingerprints)
        if self.found is not None and before != self.fingerprints:
            raise ConfigError(
                f"{self.folder} was begun with other pairs (their fingerprints were {before}, now {self.fingerprints});"
                f" give those, or another --out, or fine-tune it with --from {self.folder}"
            )
        if not self.plan.is_changed:  # else when it is known that the new length will do
            self._keep_plan(data=self.fingerprints)

    def _keep_plan(self, **more: Any) -> None:
        self.plan.put(write=self.group.leads, **more)

    def _prepare(self, tokenizer: Tokenizer | None) -> Prepared:
        """The pairs as token ids; the first process makes them, the others find them made."""
        options = self.options
        if self.group.size > 1 and "-" in options.files:
            raise ConfigError(f"files={options.files}: several processes cannot share standard input; give a file")
        if not self.group.leads:
            self.group.wait()
        data = prepare(
            self.reader, self.folder / DATA, vocab_size=options.vocab_size,
            valid=self.valid, held_out=options.held_out,
            max_tokens=options.max_tokens, skip_bad_rows=options.skip_bad_rows, tokenizer=tokenizer,
            progress=lambda what, rows: self.report.progress(f"{what}: {rows:,}"),
        )  # fmt: skip
        if self.group.leads:
            self.group.wait()
        counts = data.counts
        for file, note in counts.get("read_as", {}).items():
            self.report.say(f"{shown_name(file)}: {note}")
        skipped = "".join(f", {n:,} {why}" for why, n in counts["skipped"].items())
        long = f", {counts['too_many_tokens']:,} longer than {options.max_tokens} tokens"
        self.report.say(
            f"data: {counts['train']:,} pairs to train on, {counts['valid']:,} held out{long}; "
            f"skipped: {skipped.lstrip(', ') or 'none'}; {data.tokenizer.size:,} subwords"
        )
        return data

    def _trainer(self, start: Seq2Seq | None) -> Trainer:
        torch.manual_seed(self.options.seed)
        module = build(model_config(self.options, vocabulary_of(self.data.tokenizer))) if start is None else start
        module.to(self.device)
        count = sum(p.numel() for p in module.parameters())
        precision = pick_precision(self.options.precision, self.device)
        named = str(precision).removeprefix("torch.")
        self.report.say(
            f"model: {type(module).__name__}, {count:,} parameters; {named} on {self.device}, "
            f"{torch.get_num_threads()} threads" + (f", {self.group.size} processes" if self.group.size > 1 else "")
        )
        return Trainer(module, make_optimizer(module, self.options), self.options, self.group, precision)

    def _schedule(self, trainer: Trainer, order: Order) -> Schedule:
        """The run's steps and learning rates; measured once where minutes are given, and kept."""
        options, first_says = self.options, self.group.first_says
        planned = first_says(self.plan.get("steps", 0))
        every = first_says(self.plan.get("evaluate_every", 0))
        is_extended = first_says(bool(planned) and self.plan.has_new_length)
        fits: dict[str, int] = {} if is_extended else first_says(self.plan.get("fits", {}))
        steps = 0 if is_extended else planned
        if not steps and options.minutes is not None:
            if is_extended and self.found is not None:
                steps = first_says(self._steps_in_all(options.minutes, self.found.state))
            else:
                steps, every = map(first_says, self._steps_in(options.minutes, trainer, order))
        elif not steps and options.steps is not None:
            steps = options.steps
        elif not steps:
            epochs = EPOCHS if options.epochs is None else options.epochs
            steps = max(1, round(epochs * order.steps_an_epoch))
        taken = 0 if self.found is None else self.found.state["step"]
        if is_extended and steps <= taken:
            raise ConfigError(
                f"{self.folder} has taken {taken:,} steps, and with the length that is given now it has {steps:,}; "
                "give a greater one"
            )
        if steps != planned:
            self._say_length(steps, planned, order)
        self.every = every or options.evaluate_every or max(LEAST_BETWEEN, steps // EVALUATIONS)
        self._keep_plan(steps=steps, evaluate_every=self.every, fits=fits, data=self.fingerprints, finished=False)
        warmup = Schedule.default_warmup(steps) if options.warmup is None else options.warmup
        peak = options.learning_rate
        if peak is None and options.schedule == "paper":
            size = getattr(trainer.module.config, "embed_dim", 512)
            peak = (size * max(1, warmup)) ** -0.5
        elif peak is None:
            peak = PEAK if options.start is None else FINE_TUNING_PEAK
        return Schedule(kind=options.schedule, peak=peak, warmup=warmup, steps=steps)

    def _say_length(self, steps: int, before: int, order: Order) -> None:
        """How long the run will be, where that is not what the options say."""
        epochs = steps / order.steps_an_epoch
        if before:
            self.report.say(
                f"extended from {before:,} to {steps:,} steps; the learning rate goes on as that of a run of so many"
            )
        if self.options.minutes is None:
            return
        self.report.say(f"{self.options.minutes:g} minutes: about {steps:,} steps, {epochs:.1f} epochs")
        if self.options.start is None and epochs < FEW_EPOCHS:
            self.report.say(
                f"warning: from nothing, {epochs:.1f} epochs are few; more --minutes, a smaller --size, or a model to "
                "start from (--from en-it) translate better"
            )
        elif epochs < 1:
            self.report.say(f"warning: {epochs:.0%} of the pairs will be seen; give more --minutes to see all of them")

    def _steps_in_all(self, minutes: float, state: dict[str, Any]) -> int:
        """The steps of a run that has taken some, if it goes on at their pace until it has taken so many minutes."""
        left = SPARE * 60 * minutes - state["seconds"] - (time.perf_counter() - self.started)
        return int(state["step"] + max(0.0, left) * state["step"] / max(state["seconds"], 1e-9))

    def _steps_in(self, minutes: float, trainer: Trainer, order: Order) -> tuple[int, int]:
        """How many steps fit, and how many of them lie between evaluations."""
        self.report.progress("measuring the time of a step")
        step = trainer.seconds_a_step(order, MEASURED_STEPS)
        began = time.perf_counter()
        trainer.evaluate(self.data.valid)
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
        return steps, max(LEAST_BETWEEN, math.ceil(steps / evaluations))

    def _train(self, trainer: Trainer, order: Order, schedule: Schedule) -> None:
        progress = self._restore(trainer)
        for step, steps in self._fits().items():
            schedule = schedule.refit(step, steps) if step <= progress.step else schedule
        before, first = progress.seconds, progress.step
        began = since = time.perf_counter()
        sat, last = 0, first  # tokens since then, and the step then
        with interrupts() as received:
            while progress.step < schedule.steps and not self._enough(progress):
                batches, number = order.next(progress), progress.step + 1
                tokens = order.tokens(batches)
                rate = schedule.rate(number)
                progress.loss += trainer.step(order, batches, number, rate) * tokens
                progress.counted, sat = progress.counted + tokens, sat + tokens
                progress.step, progress.tokens = number, progress.tokens + tokens
                loss = progress.loss / progress.counted
                progress.seconds = before + time.perf_counter() - self.started
                seconds = (time.perf_counter() - began) / (number - first) * (schedule.steps - number)
                self.report.progress(
                    f"step {number:,}/{schedule.steps:,}  loss {loss:.3f}  perplexity "
                    f"{perplexity(loss):.1f}  {sat / (time.perf_counter() - since):,.0f} tokens/s  "
                    f"{duration(seconds)} left"
                )
                if number % self.every == 0 or number == schedule.steps:
                    stepped = time.perf_counter() - since
                    self._evaluate(trainer, progress, loss=loss, speed=sat / stepped, rate=rate)
                    now = time.perf_counter()
                    progress.seconds = before + now - self.started
                    pace = (now - since) / (number - last), (now - began) / (number - first)
                    schedule = self._fitted(schedule, progress, *pace, now - since - stepped)
                    progress.loss, progress.counted, since = 0.0, 0, now
                    sat, last = 0, number
                signal = self.group.first_says(received[0] if received else 0)
                ends = number == schedule.steps or self._enough(progress)
                if number % self.options.checkpoint_every == 0 or ends or signal:
                    self._checkpoint(trainer, progress)
                if signal:
                    message = f"stopped at step {number:,} of {schedule.steps:,}; the same command goes on from there"
                    if signal != SIGINT:  # whose exception bears it
                        self.report.say(message)
                    raise ending(signal, message)
        self._finish(trainer, progress)

    def _fits(self) -> dict[int, int]:
        """At which steps the run found how many steps it will have, in order."""
        return {int(step): steps for step, steps in self.plan.get("fits", {}).items()}

    def _fitted(
        self, schedule: Schedule, progress: Progress, lately: float, usually: float, evaluation: float
    ) -> Schedule:
        """The schedule with the steps that still fit into the minutes: found once after each evaluation, and kept.

        The seconds are those of a step since the last evaluation, of one in this sitting, both with their share of
        evaluations, and of this evaluation.
        """
        number = progress.step
        if self.options.minutes is None or number >= schedule.steps:
            return schedule
        if number not in (fits := self._fits()):
            left = SPARE * 60 * self.options.minutes - progress.seconds - evaluation  # the last one is certain
            more = max(0, int(left / lately))
            if 0 < more < self.every:  # the last time that it is found, and a slow stretch may be over
                more = int(left / min(lately, usually))
            fits[number] = self.group.first_says(number + more)
            self._keep_plan(fits=fits)
        return schedule.refit(number, fits[number])

    def _restore(self, trainer: Trainer) -> Progress:
        if self.found is None:
            return Progress()
        checkpoint.read(self.found, trainer.module, trainer.optimizer)
        state = self.found.state
        progress = Progress(**{f.name: state.get(f.name, f.default) for f in dataclasses.fields(Progress)})
        if (averaged := self.plan.get("averaged_loss", math.inf)) < progress.best_loss:
            progress.best_loss, progress.best_step = averaged, progress.step
        self.report.say(f"going on from step {progress.step:,}, {self.found.folder}")
        return progress

    def _enough(self, progress: Progress) -> bool:
        return self.options.patience is not None and progress.since_best >= self.options.patience

    def _evaluate(self, trainer: Trainer, progress: Progress, *, loss: float, speed: float, rate: float) -> None:
        """Measure on the held-out pairs, show a translation, and keep the model if it is the best so far."""
        held_out = trainer.evaluate(self.data.valid)
        self.report.record(
            progress.step, loss=round(loss, 5), valid_loss=round(held_out, 5), tokens=progress.tokens,
            tokens_per_second=round(speed, 1), learning_rate=rate, seconds=round(progress.seconds, 1),
        )  # fmt: skip
        better = held_out < progress.best_loss
        if better:
            progress.best_loss, progress.best_step, progress.since_best = held_out, progress.step, 0
            self._keep(trainer, progress)
        else:
            progress.since_best += 1
        self.report.say(
            f"step {progress.step:,}: loss {loss:.3f}, held out {held_out:.3f} (perplexity {perplexity(held_out):.2f}"
            f"{', the best so far' if better else ''}), {speed:,.0f} tokens/s, {duration(progress.seconds)}"
        )
        if self.group.leads:
            self._show_sample(trainer, progress.step)

    def _show_sample(self, trainer: Trainer, step: int) -> None:
        pair = self.data.valid_texts[step % len(self.data.valid_texts)]
        tokenizer = self.data.tokenizer
        found = generate(trainer.module, [tokenizer.encode(pair.source)], search=Greedy())
        for name, text in (
            ("source", pair.source), ("target", pair.target), ("output", tokenizer.decode(found[0][0].tokens))
        ):  # fmt: skip
            self.report.say(f"  {name}: {text}")

    def _usual(self) -> int:
        """Tokens that nine of ten sources have at most: a longer text is translated sentence by sentence."""
        lengths = np.asarray(self.data.train.source_lengths)
        return min(max(SENTENCES, int(np.percentile(lengths, 90)) + 1), self.options.max_tokens)

    def _keep(self, trainer: Trainer, progress: Progress) -> None:
        """Write the model as `regard.load` reads it."""
        if not self.group.leads:
            return
        told = {
            "options": self.plan.options, "max_tokens": self.options.max_tokens, "usual_tokens": self._usual(),
            "data": self.data.counts,
            "step": progress.step, "tokens": progress.tokens, "minutes": round(progress.seconds / 60, 1),
            "valid_loss": progress.best_loss, "threads": torch.get_num_threads(), "torch": torch.__version__,
        }  # fmt: skip
        folders.save(self.folder, trainer.module, self.data.tokenizer, {"training": told})

    def _checkpoint(self, trainer: Trainer, progress: Progress) -> None:
        if self.group.leads:
            folder = self.folder / CHECKPOINTS
            checkpoint.write(folder, trainer.module, trainer.optimizer, dataclasses.asdict(progress))
            checkpoint.prune(folder, keep=self.options.average, every=self.options.checkpoint_every)
        self.group.wait()

    def _finish(self, trainer: Trainer, progress: Progress) -> None:
        """The mean of the last checkpoints, if it is asked for and better; then nothing is left to do."""
        if self.options.average > 1:
            kept = checkpoint.whole(self.folder / CHECKPOINTS)
            every = self.options.checkpoint_every  # one that Ctrl-C made in between is not of the run's own
            last = [c for c in kept if c.state["step"] % every == 0 or c.state["step"] == progress.step]
            last = last[: self.options.average]
            checkpoint.average(last, trainer.module)
            held_out = trainer.evaluate(self.data.valid)
            self.report.say(f"mean of the last {len(last)} checkpoints: held out {held_out:.3f}")
            if held_out < progress.best_loss:
                progress.best_loss, progress.best_step = held_out, progress.step
                self._keep(trainer, progress)
                self._keep_plan(averaged_loss=held_out)
        self._keep_plan(finished=True)
        self.report.say(
            f"finished in {duration(progress.seconds)}: held out {progress.best_loss:.3f} at step "
            f"{progress.best_step:,}; {self.folder}"
        )
