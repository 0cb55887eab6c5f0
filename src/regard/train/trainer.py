"""Trainer: one optimizer step, and evaluation, of any task in any number of processes.

A step takes `accumulate` batches; in several processes each takes its share of every batch's rows. What is random in a
step (dropout) is seeded by the step's number, so that a resumed run needs no generator's state.
"""

import math
import time
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import Any, final

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from regard.data.sampler import BatchSampler, Position, Rows
from regard.errors import ConfigError
from regard.layers.evaluation import in_evaluation
from regard.tasks.task import Task, to_device
from regard.train.distributed import Group
from regard.train.options import TrainOptions


@final
@dataclass
class Trainer:
    """A model, its optimizer, and how to make a step.

    Args:
        task: the job.
        module: the model, on its device.
        optimizer: of its parameters.
        options: of the run.
        group: the processes that share the run.
        precision: what matrix products are computed in.
    """

    task: Task
    module: nn.Module
    optimizer: torch.optim.Optimizer
    options: TrainOptions
    group: Group = field(default_factory=Group)
    precision: torch.dtype = torch.float32

    def __post_init__(self) -> None:
        self.device = next(self.module.parameters()).device
        self.sampler, self.valid_sampler = (
            BatchSampler(
                self.task.counts[split],
                lambda rows, split=split: self.task.sizes(split, rows),  # type: ignore[misc]
                budget=self.options.batch_tokens,
                seed=seed,
            )
            for split, seed in (("train", self.options.seed), ("valid", 0))
        )
        self.parallel = self.module if self.group.size == 1 else wrap(self.module, self.device)

    def step(self, batches: list[Rows], number: int, rate: float) -> float:
        """One step of the optimizer.

        Args:
            batches: rows of the step's batches, for all processes.
            number: of the step, which seeds dropout.
            rate: the learning rate.

        Returns:
            The reported loss, a unit.

        Raises:
            ConfigError: a loss, or a gradient, that is not finite.
        """
        loss = self.gradients(batches, number)
        if not math.isfinite(loss):
            raise ConfigError(
                f"the loss is {loss} at step {number} with learning_rate={rate:.3g}; give a lower one, or a lower clip"
            )
        largest = math.inf if self.options.clip is None else self.options.clip
        norm = float(torch.nn.utils.clip_grad_norm_(self.module.parameters(), largest))
        if not math.isfinite(norm):  # nothing of it has reached the weights yet
            raise ConfigError(
                f"the gradient's norm is {norm} at step {number} with learning_rate={rate:.3g}; give a lower one"
            )
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        self.optimizer.step()
        return loss

    def gradients(self, batches: list[Rows], number: int) -> float:
        """The gradients of a step, the same in all processes; the reported loss, a unit."""
        self.module.train()
        self.optimizer.zero_grad()
        torch.manual_seed(_mixed(self.options.seed, number, self.group.rank))
        units, size = sum(map(self.task.units, batches)), self.group.size
        total = torch.zeros((), device=self.device)
        for i, rows in enumerate(batches):
            share = rows[self.group.rank :: size]
            # All processes take part in each reduction: one without rows adds nothing of another's first row.
            weight = size / units if len(share) else 0.0  # gradients are averaged over the processes
            batch = to_device(self.task.batch("train", share if len(share) else rows[:1]), self.device)
            last = i == len(batches) - 1
            with self._accumulating(last), self.casting():
                loss = self.task.loss(self.parallel, batch)
                (loss.minimized * weight).backward()
            total += loss.reported if len(share) else 0.0
        return float(self.group.add(total)) / units

    def evaluate(self) -> dict[str, float]:
        """The task's metrics on the held-out rows, without dropout."""
        module = in_evaluation(self.module)
        sums: Tensor | None = None
        with torch.no_grad(), self.casting():
            for rows in self.valid_sampler.epoch(0):
                share = rows[self.group.rank :: self.group.size]
                batch = to_device(self.task.batch("valid", share if len(share) else rows[:1]), self.device)
                part = self.task.measure(module, batch) * bool(len(share))
                sums = part if sums is None else sums + part
        return self.task.metrics(self.group.add(sums.to(self.device)).cpu())

    def casting(self) -> AbstractContextManager[Any]:
        """Matrix products in the run's precision."""
        if self.precision == torch.float32:
            return nullcontext()
        return torch.autocast(self.device.type, dtype=self.precision)

    @property
    def steps_per_epoch(self) -> int:
        """Steps to go over the data once, as in the first epoch."""
        pools = (len(self.sampler.pool(0, number)) for number in range(self.sampler.pools))
        return sum(math.ceil(batches / self.options.accumulate) for batches in pools)

    def seconds_per_step(self, steps: int) -> float:
        """How long a step takes, from some at a learning rate of 0, which change no weight.

        Args:
            steps: to measure.

        Returns:
            Seconds, the mean over batches of all sizes.
        """
        batches = sorted(self.sampler.pool(0, 0), key=len)
        chosen = [batches[i * len(batches) // (steps + 1)] for i in range(steps + 1)]
        seconds = 0.0
        for i, rows in enumerate(chosen):
            start = time.perf_counter()
            self.step([rows] * self.options.accumulate, i + 1, 0.0)
            seconds += time.perf_counter() - start if i else 0.0  # the first also allocates
        self.optimizer.state.clear()  # its moments did change
        return seconds / steps

    def next_batches(self, position: Position) -> list[Rows]:
        """The rows of the next step's batches; `position` moves past them."""
        return self.sampler.take(position, self.options.accumulate)

    def _accumulating(self, last: bool) -> AbstractContextManager[Any]:
        """No reduction over the processes before the last batch of a step."""
        if last or not isinstance(self.parallel, DistributedDataParallel):
            return nullcontext()
        return self.parallel.no_sync()


def wrap(module: nn.Module, device: torch.device) -> DistributedDataParallel:
    """The module, whose gradients are averaged over the processes while the backward pass goes on."""
    return DistributedDataParallel(
        module,
        device_ids=[device] if device.type == "cuda" else None,
        gradient_as_bucket_view=True,
    )


def make_optimizer(module: nn.Module, options: TrainOptions) -> torch.optim.Optimizer:
    """AdamW with the paper's moments, without decay of vectors; or plain gradient descent.

    Source: Loshchilov and Hutter 2017, arXiv 1711.05101, algorithm 2; moments: Vaswani et al. 2017, arXiv 1706.03762,
    section 5.3.
    """
    parameters = [p for p in module.parameters() if p.requires_grad]
    if options.optimizer == "sgd":
        return torch.optim.SGD(parameters, lr=0.0)
    matrices, vectors = [p for p in parameters if p.dim() > 1], [p for p in parameters if p.dim() <= 1]
    groups = [{"params": matrices, "weight_decay": options.weight_decay}, {"params": vectors, "weight_decay": 0.0}]
    fused = parameters[0].device.type in ("cpu", "cuda")
    return torch.optim.AdamW([g for g in groups if g["params"]], lr=0.0, betas=(0.9, 0.98), eps=1e-9, fused=fused)


def _mixed(seed: int, step: int, rank: int) -> int:
    """A seed of its own for every step and process."""
    return int(np.random.SeedSequence([seed, step, rank]).generate_state(1, np.uint64)[0] >> 1)
