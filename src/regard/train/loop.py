"""Training: step after step, in an order that the seed alone settles.

A step takes `accumulate` batches; in several processes each takes its part of every batch's rows. What is random in a
step (dropout) is seeded by the step's number, so that a resumed run needs no generator's state.
"""

import math
import time
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import Any, final

import numpy as np
import torch
from torch import Tensor

from regard.data.batches import Batch, collate, epoch_batches
from regard.data.store import PairStore
from regard.errors import ConfigError
from regard.layers.evaluation import in_evaluation
from regard.models.seq2seq import Seq2Seq
from regard.tasks.loss import learn, measure
from regard.train.distributed import Group
from regard.train.options import TrainOptions

Rows = np.ndarray[Any, Any]


@final
@dataclass
class Progress:
    """How far a run has come: what a checkpoint keeps besides tensors."""

    step: int = 0
    epoch: int = 0
    position: int = 0  # of the next batch in its epoch
    tokens: int = 0  # target tokens trained on, over all processes
    seconds: float = 0.0  # spent training, evaluation included, over all sittings
    best_loss: float = math.inf  # on the held-out pairs, a token
    best_step: int = 0
    since_best: int = 0  # evaluations
    loss: float = 0.0  # sum over the tokens since the last evaluation
    counted: int = 0  # those tokens


@final
class Order:
    """The batches of every step.

    Args:
        store: the pairs.
        options: of the run.
    """

    def __init__(self, store: PairStore, options: TrainOptions) -> None:
        self.store, self.options = store, options
        self._epoch, self._batches = -1, list[Rows]()

    def batches(self, epoch: int) -> list[Rows]:
        """The rows of every batch of an epoch."""
        if epoch != self._epoch:
            found = epoch_batches(self.store, tokens=self.options.batch_tokens, seed=self.options.seed, epoch=epoch)
            self._epoch, self._batches = epoch, found
        return self._batches

    def next(self, progress: Progress) -> list[Rows]:
        """The batches of the next step; `progress` moves past them. A step does not cross the end of an epoch."""
        batches = self.batches(progress.epoch)
        if progress.position >= len(batches):
            progress.epoch, progress.position = progress.epoch + 1, 0
            batches = self.batches(progress.epoch)
        found = batches[progress.position : progress.position + self.options.accumulate]
        progress.position += len(found)
        return found

    def tokens(self, batches: list[Rows]) -> int:
        """Target tokens of some batches, end marks counted."""
        return sum(int(self.store.target_lengths[rows].sum()) + len(rows) for rows in batches)


@final
@dataclass
class Trainer:
    """A model, its optimizer, and how to make a step.

    Args:
        module: the model, on its device.
        optimizer: of its parameters.
        options: of the run.
        group: the processes that share the run.
        precision: what matrix products are computed in.
    """

    module: Seq2Seq
    optimizer: torch.optim.Optimizer
    options: TrainOptions
    group: Group = field(default_factory=Group)
    precision: torch.dtype = torch.float32

    @property
    def device(self) -> torch.device:
        """Where the parameters are."""
        return next(self.module.parameters()).device

    def step(self, order: Order, batches: list[Rows], number: int, rate: float) -> float:
        """One step of the optimizer.

        Args:
            order: of the batches.
            batches: those of this step, for all processes.
            number: of the step, which seeds dropout.
            rate: the learning rate.

        Returns:
            The loss without smoothing, a token.

        Raises:
            ConfigError: a loss, or a gradient, that is not finite.
        """
        plain = self.gradients(order, batches, number)
        if not math.isfinite(plain):
            raise ConfigError(
                f"the loss is {plain} at step {number} with learning_rate={rate:.3g}; give a lower one, or a lower clip"
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
        return plain

    def gradients(self, order: Order, batches: list[Rows], number: int) -> float:
        """The gradients of a step, over all processes; the loss without smoothing, a token."""
        self.module.train()
        self.optimizer.zero_grad()
        torch.manual_seed(_mixed(self.options.seed, number, self.group.rank))
        tokens = order.tokens(batches)
        total = torch.zeros((), device=self.device)
        for rows in batches:
            part = rows[self.group.rank :: self.group.size]
            if not len(part):
                continue
            with self.casting():
                total += learn(self.module, self._batch(order.store, part), self.options.label_smoothing, tokens).plain
        self.group.add_gradients(self.module.parameters())
        return float(self.group.add(total)) / tokens

    def evaluate(self, store: PairStore) -> float:
        """The loss on other pairs, a token, without smoothing and dropout."""
        module = in_evaluation(self.module)
        batches = epoch_batches(store, tokens=self.options.batch_tokens, seed=0, epoch=0)
        total = torch.zeros(2, dtype=torch.float64)
        for rows in batches[self.group.rank :: self.group.size]:
            with self.casting():
                loss = measure(module, self._batch(store, rows))
            total += torch.tensor([float(loss.plain), loss.tokens], dtype=torch.float64)
        plain, tokens = self.group.add(total.to(self.device)).tolist() if self.group.size > 1 else total.tolist()
        return plain / tokens

    def casting(self) -> AbstractContextManager[Any]:
        """Matrix products in the run's precision."""
        if self.precision == torch.float32:
            return nullcontext()
        return torch.autocast(self.device.type, dtype=self.precision)

    def _batch(self, store: PairStore, rows: Rows) -> Batch:
        vocabulary = self.module.vocabulary
        batch = collate(store, rows, pad=vocabulary.pad, bos=vocabulary.bos, eos=vocabulary.eos)
        return Batch(*(x.to(self.device) if isinstance(x, Tensor) else x for x in batch))

    def seconds_a_step(self, order: Order, steps: int) -> float:
        """How long a step takes, from some at a learning rate of 0, which change no weight.

        Args:
            order: of the batches.
            steps: to measure.

        Returns:
            Seconds, the mean over batches of all lengths.
        """
        batches = order.batches(0)
        chosen = [batches[i * len(batches) // (steps + 1)] for i in range(steps + 1)]
        seconds = 0.0
        for i, rows in enumerate(chosen):
            start = time.perf_counter()
            self.step(order, [rows] * self.options.accumulate, i + 1, 0.0)
            seconds += time.perf_counter() - start if i else 0.0  # the first also allocates
        self.optimizer.state.clear()  # its moments did change
        return seconds / steps


def make_optimizer(module: Seq2Seq, options: TrainOptions) -> torch.optim.Optimizer:
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
