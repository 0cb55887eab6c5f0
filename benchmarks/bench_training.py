"""How fast does a translator train, against transformers' Seq2SeqTrainer with the same model on the same pairs?

Both train the same size on the same token ids in alternating stretches of one process, each in the faster one of
bfloat16 and float32.
"""

import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from common import worst, write
from peer import PAIRS, collator, examples, marian, trainer
from profiles import matrix_rates, step_operations, step_profile
from torch import nn
from transformers import TrainerCallback
from transformers.trainer_pt_utils import LabelSmoother
from translation import VOCABULARY, corpus, mean_tokens, options, prepared, read, spread_of, trainer_of

from regard.data.sampler import BatchSampler, Position
from regard.models.transformer import Transformer, TransformerConfig
from regard.tasks.encoder_decoder import vocabulary_of
from regard.tasks.translate import Translate

RATE = 1e-3
PRECISIONS = {"bfloat16": torch.bfloat16, "float32": torch.float32}
BAR = 1.6
SMALLER = {"embed_dim": 32, "ffn_dim": 64, "encoder_layers": 1, "decoder_layers": 1}  # to try the script out


class Ours:
    """Regard's trainer, a stretch of steps at a time."""

    def __init__(self, task: Translate, model: Transformer, batch_tokens: int, precision: str) -> None:
        self.trainer = trainer_of(task, model, precision, batch_tokens=batch_tokens)
        self.task, self.position, self.steps = task, Position(), 0

    def step(self) -> int:
        """One step; its target tokens."""
        batches = self.trainer.next_batches(self.position)
        self.steps += 1
        self.trainer.step(batches, self.steps, RATE)
        return sum(map(self.task.units, batches))

    def stretch(self, warm: int, steps: int) -> float:
        """Target tokens a second."""
        for _ in range(warm):
            self.step()
        start = time.perf_counter()
        tokens = sum(self.step() for _ in range(steps))
        return tokens / (time.perf_counter() - start)


class Clock(TrainerCallback):
    """When the first `warm` steps were done, and the tokens so far."""

    def __init__(self, warm: int) -> None:
        self.warm = warm

    def on_step_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        if state.global_step == self.warm:
            self.before, self.start = self.trainer.tokens, time.perf_counter()

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self.end = time.perf_counter()


class Theirs:
    """Seq2SeqTrainer, a stretch of steps at a time."""

    def __init__(self, model: nn.Module, data: list[Any], told: Any, folder: Path, bf16: bool) -> None:
        self.model, self.data, self.told, self.folder, self.bf16 = model, data, told, folder, bf16

    def stretch(self, warm: int, steps: int) -> float:
        """Target tokens a second."""
        clock = Clock(warm)
        clock.trainer = trainer(
            self.model, self.data, self.told, self.folder, bf16=self.bf16, callbacks=[clock], max_steps=warm + steps
        )
        clock.trainer.train()
        return (clock.trainer.tokens - clock.before) / (clock.end - clock.start)


def check(task: Translate, model: Transformer, peer: nn.Module) -> dict[str, float]:
    """The differences of both losses and their gradients on the same weights and pairs, without dropout."""
    model.eval()
    peer.eval()
    rows, told = range(min(16, task.counts["train"])), vocabulary_of(task.tokenizer)
    batch = task.batch("train", rows)
    mine = task.loss(model, batch).minimized / batch.tokens
    inputs = collator(told)(examples(task.data.train, rows, told.eos))
    labels = inputs.pop("labels")
    theirs = LabelSmoother(epsilon=task.options.label_smoothing)(peer(**inputs), labels)
    for one in (mine, theirs):
        one.backward()
    loss = worst(mine.detach(), theirs.detach())
    # The features of a layer stand in another order there: the bias of a hidden layer is the same in both.
    mine, theirs = model.encoder[0].feed_forward.expand.bias.grad, peer.model.encoder.layers[0].fc1.bias.grad
    gradient = worst(mine, theirs) / float(theirs.abs().max())
    if loss > 1e-4 or gradient > 1e-3:
        raise SystemExit(f"the losses differ by {loss}, their gradients by {gradient}: nothing to time")
    model.zero_grad(set_to_none=True)
    peer.zero_grad(set_to_none=True)
    return {"loss": loss, "gradient, relative": gradient}


def equal_tokens(task: Translate, tokens: float) -> int:
    """The `batch_tokens` with which a batch has so many target tokens on average, padding not counted."""
    count = task.counts["train"]

    def mean(budget: int) -> float:
        sampler = BatchSampler(count, lambda rows: task.sizes("train", rows), budget=budget, seed=1)
        return mean_tokens(task, sum(1 for _ in sampler.epoch(0)))

    low, high = int(task.sizes("train", np.arange(count))[:, 0].max()), int(8 * tokens)
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if mean(middle) >= tokens else (middle + 1, high)
    if abs(mean(low) / tokens - 1) > 0.02 and count > 10_000:
        raise SystemExit(f"{mean(low):.0f} target tokens a batch, against {tokens:.0f}")
    return low


def pick(sides: dict[str, dict[str, Any]], steps: int) -> tuple[dict[str, float], dict[str, str]]:
    """The rates of both precisions over a few steps, and each side's faster one, which is then measured at length."""
    trials = {f"{side}, {name}": one.stretch(1, steps) for side, both in sides.items() for name, one in both.items()}
    return trials, {side: max(both, key=lambda name: trials[f"{side}, {name}"]) for side, both in sides.items()}


def main() -> None:
    parser = options(__doc__)
    parser.add_argument("--steps", type=int, default=40, help="of a stretch")
    parser.add_argument("--stretches", type=int, default=6, help="of each side")
    given = read(parser)
    warm, steps, stretches = (1, 2, 1) if given.quick else (4, given.steps, given.stretches)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        files = corpus(given, folder)
        task = prepared(files, folder, vocab_size=500 if given.quick else VOCABULARY)
        told, store = vocabulary_of(task.tokenizer), task.data.train
        mean = mean_tokens(task, len(store))  # of a pair
        batch_tokens = equal_tokens(task, PAIRS * mean)
        rows = examples(store, range(len(store)), told.eos)

        def model() -> Transformer:
            torch.manual_seed(1)
            return Transformer(
                TransformerConfig.from_preset("small", told, dropout=0.1, **(SMALLER if given.quick else {}))
            )

        differences = check(task, model(), marian(model()))
        ours = {name: Ours(task, model(), batch_tokens, name) for name in PRECISIONS}
        theirs = {
            name: Theirs(marian(model()), rows, told, folder / "peer", dtype is torch.bfloat16)
            for name, dtype in PRECISIONS.items()
        }
        trials, best = pick({"regard": ours, "peer": theirs}, steps=2 if given.quick else 5)
        sides = {"regard": ours[best["regard"]], "peer": theirs[best["peer"]]}
        rates: dict[str, list[float]] = {side: [] for side in sides}
        for _ in range(stretches):
            for side, one in sides.items():
                rates[side].append(one.stretch(warm, steps))
        speed = {side: statistics.median(found) for side, found in rates.items()}
        mine = ours[best["regard"]]
        machine = matrix_rates(PRECISIONS, quick=given.quick)
        operations = step_operations(mine.step, steps=3)
        reached = operations * speed["regard"] / machine[best["regard"]]
        shared = {
            "data": files.name,
            "model": "d 256, 3+3 layers, 4 heads, feed-forward 1,024, dropout 0.1, smoothing 0.1, clip 1.0, AdamW",
            "vocabulary": told.size,
            "pairs_a_batch_of_the_peer": PAIRS,
            "batch_tokens_of_ours": batch_tokens,
            "target_tokens_a_batch": {"regard": mean_tokens(task, mine.trainer.steps_per_epoch), "peer": PAIRS * mean},
            "precision": best,
            "target_tokens_a_second": {side: spread_of(found) for side, found in rates.items()},
            "target_tokens_a_second_of_the_first_steps": trials,
            "differences": differences,
        }
        cases = [
            {
                "case": f"target tokens trained on in a second, against Seq2SeqTrainer's, {files.name}",
                "unit": "x its rate",
                "value": round(speed["regard"] / speed["peer"], 3),
                "bar": BAR,
                "at_least": True,
                **shared,
            },
            {
                "case": f"matrix products of training, share of the machine's {best['regard']} rate, {files.name}",
                "unit": "of its rate",
                "value": round(reached, 3),
                "bar": None,
                "operations_a_target_token": round(operations),
                "machine_operations_a_second": machine,
                "where_the_time_goes": step_profile(mine.step, steps=2 if given.quick else 10),
            },
        ]
    write("training", cases, quick=given.quick)


if __name__ == "__main__":
    main()
