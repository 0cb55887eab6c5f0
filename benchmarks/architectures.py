"""Architectures at matched parameters, and how the benchmarks train them."""

import json
import math
import time
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn
from translation import mean_tokens, trainer_of

from regard.data.sampler import Position
from regard.models.registry import build, config_from_plain
from regard.models.seq2seq import Vocabulary
from regard.models.transformer import PRESETS
from regard.tasks.translate import Translate
from regard.train.device import pick_device
from regard.train.schedule import Schedule
from regard.train.trainer import Trainer

SHORT_WARMUP = "Transformer, short warm-up"
POST_NORM = "Transformer, post-norm"
TOLERANCE = 0.05  # of the Transformer's parameters
# The model, what it is besides its sizes, and the size that is set so that the parameters match.
ARCHITECTURES: dict[str, tuple[str, dict[str, Any], str]] = {
    "fixed vector": ("rnn", {"context": "fixed"}, "hidden_dim"),
    "Bahdanau": ("rnn", {"context": "attention"}, "hidden_dim"),
    "Luong, global, dot": ("luong", {"score": "dot", "window": "global"}, "hidden_dim"),
    "Luong, one layer, concat": ("luong", {"score": "concat", "window": "global", "num_layers": 1}, "hidden_dim"),
    "Luong, local-m": ("luong", {"score": "dot", "window": "local-m"}, "hidden_dim"),
    "Luong, local-p": ("luong", {"score": "general", "window": "local-p"}, "hidden_dim"),
    "ConvS2S": ("convs2s", {}, "hidden_dim"),
    "Transformer": ("transformer", {"norm": "pre"}, ""),
    SHORT_WARMUP: ("transformer", {"norm": "pre"}, ""),
    POST_NORM: ("transformer", {"norm": "post"}, ""),
}
RATES = (1e-3, 3e-3)  # each architecture has its better one
DROPOUT = 0.1
WARMUP, LONG_WARMUP = 0.05, 0.3  # shares of the tokens: of all, and of the Transformer


def parameters(module: nn.Module) -> int:
    """How many there are, vectors of tokens and of positions aside."""
    skipped = {id(p) for part in module.modules() if _embeds(part) for p in part.parameters()}
    return sum(p.numel() for p in module.parameters() if id(p) not in skipped)


def _embeds(part: nn.Module) -> bool:
    return isinstance(part, nn.Embedding) or type(part).__name__ in ("Embeddings", "LearnedPositions")


def matched(name: str, told: Vocabulary, size: str) -> tuple[Any, int]:
    """The configuration of an architecture with the parameters of a Transformer of this size; and how many it has."""
    width = PRESETS[size]["embed_dim"]
    model, settings, free = ARCHITECTURES[name]
    target = _count("transformer", {"vocabulary": told, **PRESETS[size]})
    plain = {"vocabulary": told, "dropout": DROPOUT, "embed_dim": width, **settings}
    if not free:
        return config_from_plain(model, {**plain, **PRESETS[size]}), target
    if model == "rnn":
        plain["align_dim"] = width

    def apart(eighth: int) -> int:
        return _count(model, {**plain, free: 8 * eighth}) - target

    low, high = 2, width
    while low < high:  # the smallest multiple of 8 with no fewer parameters
        middle = (low + high) // 2
        low, high = (low, middle) if apart(middle) >= 0 else (middle + 1, high)
    best = 8 * min((low - 1, low), key=lambda x: abs(apart(x)))
    found = _count(model, {**plain, free: best})
    if abs(found / target - 1) > TOLERANCE:
        raise SystemExit(f"{name} has {found:,} parameters with {free}={best}; the Transformer {target:,}")
    return config_from_plain(model, {**plain, free: best}), target


def _count(model: str, plain: dict[str, Any]) -> int:
    with torch.device("meta"):
        return parameters(build(config_from_plain(model, plain)))


def begun(task: Translate, config: Any, *, seed: int, batch_tokens: int, device: torch.device) -> Trainer:
    """What trains a new model on a device."""
    torch.manual_seed(seed)
    return trainer_of(task, build(config).to(device), "auto", batch_tokens=batch_tokens, seed=seed)


def train(
    name: str,
    config: Any,
    task: Translate,
    *,
    tokens: int,
    seed: int,
    rate: float,
    batch_tokens: int = 2048,
    device: str = "cpu",
) -> tuple[Trainer, dict[str, Any]]:
    """Train a model on so many target tokens.

    Args:
        name: of the architecture.
        config: of the model.
        task: of translating the pairs.
        tokens: target tokens, end marks counted; the last batch may go a little beyond.
        seed: of the weights, the order and dropout.
        rate: the highest learning rate.
        batch_tokens: of a batch, padding counted.
        device: to train on.

    Returns:
        The trainer, and what was measured.
    """
    trainer = begun(task, config, seed=seed, batch_tokens=batch_tokens, device=pick_device(device))
    warmup = LONG_WARMUP if name == "Transformer" else WARMUP
    steps = math.ceil(tokens / mean_tokens(task, trainer.steps_per_epoch))
    schedule = Schedule(kind="linear", peak=rate, warmup=max(1, round(warmup * steps)), steps=steps)
    position, step, trained = Position(), 0, 0
    start = reported = time.perf_counter()
    while trained < tokens:
        batches = trainer.next_batches(position)
        step += 1
        trainer.step(batches, step, schedule.rate(min(step, steps)))
        trained += sum(map(task.units, batches))
        if time.perf_counter() - reported > 60:
            reported = time.perf_counter()
            print(f"  {trained:,} of {tokens:,} tokens, {trained / (reported - start):,.0f}/s", flush=True)
    seconds = time.perf_counter() - start
    measured = {"tokens": trained, "steps": step, "tokens_a_second": trained / seconds}
    where = torch.cuda.get_device_name() if trainer.device.type == "cuda" else "processor"
    return trainer, {**measured, "precision": str(trainer.precision).removeprefix("torch."), "device": where}


class Runs:
    """Results of single runs, a line each, so that a benchmark that was stopped goes on with what is missing.

    Args:
        path: of the file.
        setting: what all runs must have in common to be compared; lines of other settings stay, and are not read.
    """

    def __init__(self, path: Path, setting: dict[str, Any]) -> None:
        self.path, self.setting = path, setting

    def found(self) -> list[dict[str, Any]]:
        """The runs of this setting."""
        if not self.path.exists():
            return []
        lines = [json.loads(line) for line in self.path.read_text(encoding="utf-8").splitlines()]
        return [line for line in lines if line["setting"] == self.setting]

    def missing(
        self, names: Iterable[str], seeds: Iterable[int], rates: Sequence[float] = RATES
    ) -> Iterator[tuple[str, int, float]]:
        """What there are no results of, one after another: name, seed and learning rate.

        The first seed is trained at every rate, the others at the one that was best for it.
        """
        names = list(names)
        for i, seed in enumerate(seeds):
            for name in names:
                for rate in rates if i == 0 else (self.best_rate(name),):
                    if not any((x["name"], x["seed"], x["rate"]) == (name, seed, rate) for x in self.found()):
                        yield name, seed, rate

    def best_rate(self, name: str) -> float:
        """The learning rate with which an architecture learned most."""
        return float(min((x for x in self.found() if x["name"] == name), key=lambda x: x["held_out_loss"])["rate"])

    def best(self, name: str) -> list[dict[str, Any]]:
        """An architecture's runs at that rate."""
        return [x for x in self.found() if x["name"] == name and x["rate"] == self.best_rate(name)]

    def perplexities(self, name: str) -> dict[str, list[float]]:
        """An architecture's runs by learning rate."""
        runs = [x for x in self.found() if x["name"] == name]
        rates = sorted({x["rate"] for x in runs})
        return {str(rate): [x["perplexity"] for x in runs if x["rate"] == rate] for rate in rates}

    def add(self, name: str, seed: int, **measured: Any) -> None:
        """Keep a result."""
        self.path.parent.mkdir(exist_ok=True)
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps({"setting": self.setting, "name": name, "seed": seed, **measured}) + "\n")
