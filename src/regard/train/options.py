"""Options of a training run. The command line generates its options from these fields."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, final

from regard.errors import ConfigError, nearest
from regard.tasks.registry import TRAINED

MAX_THREADS, MAX_SUBWORDS = 1024, 1_000_000
SCHEDULES = ("linear", "cosine", "paper", "constant")
PRECISIONS = ("auto", "float32", "bfloat16")


def option(help: str, default: Any, **settings: Any) -> Any:
    """Field with its line of `--help`; `group` names the heading."""
    return field(default=default, metadata={"help": help, **settings})


@final
@dataclass(frozen=True, kw_only=True)
class TrainOptions:
    """Options of a training run: data, model, length and optimization.

    Args:
        files: files of records, "-" for standard input, or "datasets:NAME".
        out: folder of the run, created if missing; a run with the same options resumes.
        start: model to fine-tune: its weights, tokenizer and configuration are used, with a new optimizer state.
        model_settings: fields of the model's configuration, by name.
        attention: values of its attention, as for `AttentionConfig.from_plain`.

    Other fields: see their help text. All sizes are in tokens after the subword tokenizer.

    Raises:
        ConfigError: a value that is out of range or unknown, or two that exclude each other.
    """

    files: tuple[str, ...] = option(
        "Records to train on: TSV, CSV, JSONL, JSON, Parquet; .gz or .zst; - for standard input.", ()
    )
    task: str = option(f"Task to train: {', '.join(TRAINED)}, or module:Class of your own.", "translate", group="run")
    task_settings: Mapping[str, Any] | None = option(
        "Settings of the task, such as those that module:Class defines.", None, group="run"
    )
    out: str = option("Folder of the run.", "run", group="run")
    start: str | None = option(
        "Model to fine-tune: en-it, the folder of a run, or a published encoder (for classify).",
        None,
        group="run",
        flag="--from",
    )

    parallel: tuple[str, str] | None = option(
        "Two parallel files, one sentence per line.", None, group="data", metavar=("SOURCES", "TARGETS")
    )
    fields: Mapping[str, str] | None = option(
        "Field or column number that holds a part of each record: --field.source en.", None, group="data"
    )
    source_field: str | None = option("Same as --field.source.", None, group="data")
    target_field: str | None = option("Same as --field.target.", None, group="data")
    format: str | None = option(
        "tsv, csv, jsonl, json or parquet; by default, from the file names.", None, group="data"
    )
    delimiter: str | None = option("Column delimiter of CSV; detected by default.", None, group="data", metavar="C")
    valid: str | None = option(
        "File of held-out records; by default, a part of the training records, chosen by a hash.", None, group="data"
    )
    held_out: int = option("Number of records to hold out, at most 5% of all.", 2000, group="data")
    skip_bad_rows: bool = option("Count and skip bad rows instead of stopping.", False, group="data")
    vocab_size: int | None = option(
        "Vocabulary size; by default 8,000 subwords, 20,000 words for pointer-generator, characters for speech.",
        None,
        group="data",
    )
    max_tokens: int = option(
        "Maximum tokens of a text; longer pairs are left out, longer documents are truncated.", 256, group="data"
    )

    model: str | None = option(
        "transformer, rnn, luong, convs2s; pointer-generator (for summarize); vit or conv-attention (for classify, of "
        "pictures); show-attend-tell or picture-transformer (for caption); listener or speech-transformer (for "
        "transcribe, from nothing); by default, that of the task.",
        None,
        group="model",
    )
    size: str | None = option("Size of a transformer: tiny, small, base or big.", None, group="model")
    model_settings: Mapping[str, Any] | None = option(
        "Fields of the model's configuration: --model.embed_dim 512.", None, group="model"
    )
    attention: Mapping[str, Any] | None = option(
        "Values of its attention: --attention.normalizer entmax.", None, group="model"
    )
    dropout: float | None = option("Dropout probability; by default, that of the model.", None, group="model")

    minutes: float | None = option("Training time in minutes, evaluation included.", None, group="length")
    steps: int | None = option("Number of steps.", None, group="length")
    epochs: float | None = option("Number of passes over the data; 10 if no length is given.", None, group="length")
    patience: int | None = option("Stop after N evaluations without improvement.", None, group="length")
    evaluate_every: int | None = option(
        "Steps between evaluations; by default, 20 evaluations in a run, at least 50 steps apart.", None, group="length"
    )
    checkpoint_every: int = option("Steps between checkpoints.", 200, group="length")

    batch_tokens: int = option("Tokens per batch, padding included.", 2048, group="optimization")
    accumulate: int = option("Batches per step, whose gradients are accumulated.", 1, group="optimization")
    learning_rate: float | None = option(
        "Peak learning rate; by default the architecture's, 2e-4 with --from, or the paper's with --schedule paper.",
        None,
        group="optimization",
    )
    schedule: str = option(
        "Learning rate after the warm-up: linear, cosine, paper or constant.", "linear", group="optimization"
    )
    warmup: int | None = option("Warm-up steps; by default 5% of all, at most 4,000.", None, group="optimization")
    optimizer: str = option("adamw or sgd.", "adamw", group="optimization")
    weight_decay: float = option("Weight decay of AdamW.", 0.01, group="optimization")
    clip: float | None = option("Gradient clipping: maximum norm.", 1.0, group="optimization")
    label_smoothing: float = option(
        "Label smoothing: share of the target's probability that is spread over all tokens.", 0.1, group="optimization"
    )
    average: int = option("Number of last checkpoints to average at the end; 1: none.", 1, group="optimization")
    seed: int = option("Random seed of the weights, the data order and dropout.", 1, group="optimization")

    precision: str = option(
        "auto, float32 or bfloat16; auto: bfloat16 where the device computes it fast.", "auto", group="machine"
    )
    threads: int | None = option("Number of threads; by default, all cores.", None, group="machine")
    device: str = option("Device: auto, cpu, cuda, cuda:0 or mps.", "auto", group="machine")
    tensorboard: bool = option("Also write TensorBoard events.", False, group="machine")

    def __post_init__(self) -> None:
        for part in ("source", "target"):
            if (name := getattr(self, f"{part}_field")) is not None:
                object.__setattr__(self, "fields", {**(self.fields or {}), part: name})
                object.__setattr__(self, f"{part}_field", None)
        _known("schedule", self.schedule, SCHEDULES)
        _known("precision", self.precision, PRECISIONS)
        _known("optimizer", self.optimizer, ("adamw", "sgd"))
        _known("device", self.device.split(":")[0], ("auto", "cpu", "cuda", "mps"))
        if bool(self.files) == (self.parallel is not None):
            raise ConfigError(f"files={self.files} and parallel={self.parallel}: give one of them")
        if self.start is not None and Path(self.start).absolute() == Path(self.out).absolute():
            raise ConfigError(f"start and out are both {self.out!r}; give the new run a folder of its own")
        lengths = {name: getattr(self, name) for name in ("minutes", "steps", "epochs")}
        lengths = {name: x for name, x in lengths.items() if x is not None}
        if len(lengths) > 1:
            raise ConfigError(f"{' and '.join(f'{n}={x}' for n, x in lengths.items())}: give one of them")
        for name in (
            "held_out",
            "vocab_size",
            "max_tokens",
            "checkpoint_every",
            "batch_tokens",
            "accumulate",
            "average",
        ):
            _check(self, name, lambda x: x >= 1, "at least 1")
        for name in ("minutes", "steps", "epochs", "patience", "evaluate_every", "learning_rate", "clip"):
            _check(self, name, lambda x: 0 < x < math.inf, "above 0 and finite")
        for name in ("weight_decay", "warmup"):
            _check(self, name, lambda x: 0 <= x < math.inf, "at least 0 and finite")
        _check(self, "threads", lambda x: 1 <= x <= MAX_THREADS, f"from 1 to {MAX_THREADS}")
        _check(self, "seed", lambda x: 0 <= x < 2**63, "at least 0 and below 2^63")
        for name in ("dropout", "label_smoothing"):
            _check(self, name, lambda x: 0 <= x < 1, "at least 0 and below 1")
        _check(
            self, "vocab_size", lambda x: 300 <= x <= MAX_SUBWORDS, f"from 300 (256 bytes and more) to {MAX_SUBWORDS}"
        )


def _check(options: TrainOptions, name: str, valid: Any, expected: str) -> None:
    x = getattr(options, name)
    if x is not None and not valid(x):
        raise ConfigError(f"{name}={x} must be {expected}")


def _known(name: str, x: str, known: tuple[str, ...]) -> None:
    if x not in known:
        raise ConfigError(f"unknown {name} {x!r}; {nearest(x, known)}")


def to_plain(options: TrainOptions) -> dict[str, Any]:
    """Options that differ from their defaults, as JSON types."""
    changed = {f.name: getattr(options, f.name) for f in fields(options)}
    return {n: list(x) if isinstance(x, tuple) else x for n, x in changed.items() if x != _default(n)}


def _default(name: str) -> Any:
    return next(f.default for f in fields(TrainOptions) if f.name == name)
