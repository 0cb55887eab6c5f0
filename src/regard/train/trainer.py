"""Trainer: optimizer steps and evaluation of any task, in one or several processes.

A step consumes `accumulate` batches, of whose rows each process takes its share. The randomness of a step (dropout) is
seeded by its number, so that a resumed run needs no generator state.
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
    """Model, optimizer and batches of a run.

    Args:
        task: task to train.
        module: model, on its device.
        optimizer: optimizer of the model's parameters.
        options: options of the run.
        group: processes of the run.
        precision: data type of matrix products.
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
        """Take an optimizer step.

        Args:
            batches: rows of the batches, of all processes.
            number: number of the step, which seeds dropout.
            rate: learning rate.

        Returns:
            The reported loss per unit.

        Raises:
            ConfigError: a loss or gradient that is not finite.
        """
        loss = self.gradients(batches, number)
        if not math.isfinite(loss):
            raise ConfigError(
                f"the loss is {loss} at step {number} with learning_rate={rate:.3g}; give a lower learning rate or clip"
            )
        max_norm = math.inf if self.options.clip is None else self.options.clip
        norm = float(torch.nn.utils.clip_grad_norm_(self.module.parameters(), max_norm))
        if not math.isfinite(norm):  # the weights are still unchanged
            raise ConfigError(
                f"the gradient's norm is {norm} at step {number} with learning_rate={rate:.3g}; give a lower rate"
            )
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        self.optimizer.step()
        return loss

    def gradients(self, batches: list[Rows], number: int) -> float:
        """Compute the gradients of a step, the same in all processes, and its reported loss per unit."""
        self.module.train()
        self.optimizer.zero_grad()
        torch.manual_seed(_mixed(self.options.seed, number, self.group.rank))
        units, size = sum(map(self.task.units, batches)), self.group.size
        total = torch.zeros((), device=self.device)
        for i, rows in enumerate(batches):
            share = rows[self.group.rank :: size]
            # Every process must take part in each reduction; one without rows uses the first row with weight 0.
            weight = size / units if len(share) else 0.0  # gradients are averaged over the processes
            batch = to_device(self.task.batch("train", share if len(share) else rows[:1]), self.device)
            last = i == len(batches) - 1
            with self._accumulating(last), self.casting():
                loss = self.task.loss(self.parallel, batch)
                (loss.minimized * weight).backward()
            total += loss.reported if len(share) else 0.0
        return float(self.group.add(total)) / units

    def evaluate(self) -> dict[str, float]:
        """Metrics of the task on the held-out rows, without dropout."""
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
        """Context in which matrix products use the precision of the run."""
        if self.precision == torch.float32:
            return nullcontext()
        return torch.autocast(self.device.type, dtype=self.precision)

    @property
    def steps_per_epoch(self) -> int:
        """Number of steps in the first epoch."""
        pools = (len(self.sampler.pool(0, number)) for number in range(self.sampler.pools))
        return sum(math.ceil(batches / self.options.accumulate) for batches in pools)

    def seconds_per_step(self, steps: int) -> float:
        """Measured time of a step, at a learning rate of 0, which changes no weight.

        Args:
            steps: number of steps to measure.

        Returns:
            Mean seconds per step, over batches of all sizes.
        """
        batches = sorted(self.sampler.pool(0, 0), key=len)
        chosen = [batches[i * len(batches) // (steps + 1)] for i in range(steps + 1)]
        seconds = 0.0
        for i, rows in enumerate(chosen):
            start = time.perf_counter()
            self.step([rows] * self.options.accumulate, i + 1, 0.0)
            seconds += time.perf_counter() - start if i else 0.0  # the first one also allocates memory
        self.optimizer.state.clear()  # the moments have changed
        return seconds / steps

    def next_batches(self, position: Position) -> list[Rows]:
        """Rows of the batches of the next step; advances `position`."""
        return self.sampler.take(position, self.options.accumulate)

    def _accumulating(self, last: bool) -> AbstractContextManager[Any]:
        """Context that reduces gradients over the processes only for the last batch of a step."""
        if last or not isinstance(self.parallel, DistributedDataParallel):
            return nullcontext()
        return self.parallel.no_sync()


def wrap(module: nn.Module, device: torch.device) -> DistributedDataParallel:
    """Module whose gradients are averaged over the processes during the backward pass."""
    return DistributedDataParallel(
        module,
        device_ids=[device] if device.type == "cuda" else None,
        gradient_as_bucket_view=True,
    )


def make_optimizer(module: nn.Module, options: TrainOptions) -> torch.optim.Optimizer:
    """Optimizer of a run: AdamW with the betas of the paper and no weight decay of vectors, or plain SGD.

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
    """Random seed of a step in a process."""
    return int(np.random.SeedSequence([seed, step, rank]).generate_state(1, np.uint64)[0] >> 1)
