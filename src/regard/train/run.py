"""A training run from files of pairs to a folder that explains itself.

    config.json, tokenizer.json, model.safetensors    the best model so far, as `regard.load` reads it
    metrics.jsonl                                     losses by step
    data/                                             the pairs as token ids
    checkpoints/                                      what a run that was stopped goes on from

The same command started again goes on where the newest whole checkpoint stands, and ends with the same weights as if
it had not been stopped; in a run of so many minutes, how many steps it has may be found otherwise after the stop.
"""

import dataclasses
import json
import math
import shutil
import sys
import time
from contextlib import nullcontext
from pathlib import Path
from typing import Any, final

import numpy as np
import torch

from regard.data.prepare import Prepared, prepare
from regard.data.tokenizer import Tokenizer
from regard.decode.generate import generate, twice_as_long
from regard.decode.search import Greedy
from regard.errors import CheckpointError, ConfigError
from regard.models.registry import build
from regard.models.seq2seq import Seq2Seq, Vocabulary
from regard.train import checkpoint
from regard.train.alone import alone
from regard.train.distributed import Group, joined
from regard.train.interrupt import interrupts
from regard.train.loop import Order, Progress, Trainer, make_optimizer
from regard.train.options import TrainOptions, to_plain
from regard.train.report import Report, duration, perplexity
from regard.train.schedule import Schedule
from regard.train.setup import model_config, pair_reader, pick_device, pick_precision, read_start, vocabulary_of
from regard.trained import folder as folders

CHECKPOINTS, DATA, PLAN = "checkpoints", "data", "plan.json"
EVALUATIONS = 20  # in a run, if `evaluate_every` says nothing
LEAST_BETWEEN = 50  # steps between evaluations, likewise
EVALUATION_SHARE = 0.1  # of the minutes, at most, for which there may be fewer
EPOCHS = 10  # if nothing is said of the run's length
MEASURED_STEPS = 12
MOST_TARGETS = 99.9  # percent of the targets, whose length is taken for usual
SENTENCES = 48  # tokens of a text that may stay whole whatever the training's had
SPARE = 0.97  # share of the minutes that the plan fills
PEAK, FINE_TUNING_PEAK = 1e-3, 2e-4
# What may differ when a run is started again.
FREE = ("out", "threads", "tensorboard")


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
        self.plain = {name: x for name, x in to_plain(options).items() if name not in FREE}

    def run(self) -> Path:
        """Everything, from the files to the trained model."""
        model_config(self.options, Vocabulary(size=self.options.vocab_size))  # wrong names end here
        self.reader = pair_reader(self.options)
        self.plan = self._begun()
        if self.plan.get("finished"):
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

    def _begun(self) -> dict[str, Any]:
        """What the folder was begun with, which must be the same now."""
        path = self.folder / PLAN
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            plan: dict[str, Any] = json.loads(path.read_bytes()) if path.exists() else {"options": self.plain}
        except ValueError as error:
            raise CheckpointError(f"{path} is not JSON ({error}); remove {self.folder} to begin anew") from error
        except OSError as error:
            raise ConfigError(f"out={self.options.out!r} cannot be made or read: {error.strerror}") from error
        if not isinstance(plan, dict) or not isinstance(plan.get("options"), dict):
            raise CheckpointError(f"{path} has no options; remove {self.folder} to begin anew")
        if plan["options"] != self.plain:
            names = sorted(plan["options"].keys() | self.plain.keys())
            told = [n for n in names if plan["options"].get(n) != self.plain.get(n)]
            differing = ", ".join(f"{n} was {plan['options'].get(n)!r}, now {self.plain.get(n)!r}" for n in told)
            raise ConfigError(
                f"{self.folder} was begun with other options ({differing}); give those, or another --out, or fine-tune "
                f"it with --from {self.folder}"
            )
        return plan

    def _check_data(self) -> None:
        """Raise unless the pairs are those that the run was begun with, if it has come to a checkpoint."""
        named = {"tokenizer": self.data.tokenizer, "train": self.data.train, "valid": self.data.valid}
        told = {name: x.fingerprint for name, x in named.items()}
        if self.found is not None and self.plan.get("data", told) != told:
            raise ConfigError(
                f"{self.folder} was begun with other pairs (their fingerprints were {self.plan['data']}, now {told}); "
                f"give those, or another --out, or fine-tune it with --from {self.folder}"
            )
        self._keep_plan(data=told)

    def _keep_plan(self, **more: Any) -> None:
        self.plan |= more
        if self.group.leads:
            text = json.dumps(self.plan, indent=1) + "\n"
            folders.write_all(self.folder, {PLAN: lambda path: path.write_text(text, encoding="utf-8")})

    def _prepare(self, tokenizer: Tokenizer | None) -> Prepared:
        """The pairs as token ids; the first process makes them, the others find them made."""
        options = self.options
        if self.group.size > 1 and "-" in options.files:
            raise ConfigError(f"files={options.files}: several processes cannot share standard input; give a file")
        if not self.group.leads:
            self.group.wait()
        data = prepare(
            self.reader, self.folder / DATA, vocab_size=options.vocab_size,
            valid=None if options.valid is None else (options.valid,), held_out=options.held_out,
            max_tokens=options.max_tokens, skip_bad_rows=options.skip_bad_rows, tokenizer=tokenizer,
            progress=lambda what, rows: self.report.progress(f"{what}: {rows:,}"),
        )  # fmt: skip
        if self.group.leads:
            self.group.wait()
        counts = data.counts
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
        options = self.options
        steps = self.group.first_says(self.plan.get("steps", 0))
        every = self.group.first_says(self.plan.get("evaluate_every", 0))
        self.plan["fits"] = self.group.first_says(self.plan.get("fits", {}))
        if not steps and options.minutes is not None:
            steps, every = map(self.group.first_says, self._steps_in(options.minutes, trainer, order))
        elif not steps and options.steps is not None:
            steps = options.steps
        elif not steps:
            epochs = EPOCHS if options.epochs is None else options.epochs
            steps = max(1, round(epochs * math.ceil(len(order.batches(0)) / options.accumulate)))
        self.every = every or options.evaluate_every or max(LEAST_BETWEEN, steps // EVALUATIONS)
        self._keep_plan(steps=steps, evaluate_every=self.every)
        warmup = Schedule.default_warmup(steps) if options.warmup is None else options.warmup
        peak = options.learning_rate
        if peak is None and options.schedule == "paper":
            size = getattr(trainer.module.config, "embed_dim", 512)
            peak = (size * max(1, warmup)) ** -0.5
        elif peak is None:
            peak = PEAK if options.start is None else FINE_TUNING_PEAK
        return Schedule(kind=options.schedule, peak=peak, warmup=warmup, steps=steps)

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
        with interrupts() as interrupted:
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
                stopping = self.group.first_says(len(interrupted)) > 0
                ends = number == schedule.steps or self._enough(progress)
                if number % self.options.checkpoint_every == 0 or ends or stopping:
                    self._checkpoint(trainer, progress)
                if stopping:
                    raise KeyboardInterrupt(f"stopped at step {number:,}; the same command goes on from there")
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
        excess = self._lengths()["target_excess"]
        found = generate(
            trainer.module,
            [tokenizer.encode(pair.source)],
            search=Greedy(),
            max_length=lambda source: twice_as_long(source) + excess,
        )
        for name, text in (
            ("source", pair.source), ("target", pair.target), ("output", tokenizer.decode(found[0][0].tokens))
        ):  # fmt: skip
            self.report.say(f"  {name}: {text}")

    def _usual(self) -> int:
        """Tokens that nine of ten sources have at most: a longer text is translated sentence by sentence."""
        lengths = np.asarray(self.data.train.source_lengths)
        return min(max(SENTENCES, int(np.percentile(lengths, 90)) + 1), self.options.max_tokens)

    def _lengths(self) -> dict[str, Any]:
        """How long targets are beside their sources, in tokens: all together, and by how many they exceed twice."""
        train = self.data.train
        sources, targets = np.asarray(train.source_lengths, np.int64), np.asarray(train.target_lengths, np.int64)
        excess = int(np.percentile(targets - 2 * sources, MOST_TARGETS)) + 1
        return {"length_ratio": float(targets.sum() / sources.sum()), "target_excess": max(excess, 0)}

    def _keep(self, trainer: Trainer, progress: Progress) -> None:
        """Write the model as `regard.load` reads it."""
        if not self.group.leads:
            return
        told = {
            "options": self.plain, "max_tokens": self.options.max_tokens, "usual_tokens": self._usual(),
            **self._lengths(), "data": self.data.counts,
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
        self._keep_plan(finished=True)
        self.report.say(
            f"finished in {duration(progress.seconds)}: held out {progress.best_loss:.3f} at step "
            f"{progress.best_step:,}; {self.folder}"
        )
