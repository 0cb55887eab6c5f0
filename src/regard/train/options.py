"""What may be said about a training run. The command line makes its flags from these fields."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, final

from regard.errors import ConfigError, nearest
from regard.tasks.registry import TRAINED

MOST_THREADS, MOST_SUBWORDS = 1024, 1_000_000
SCHEDULES = ("linear", "cosine", "paper", "constant")
PRECISIONS = ("auto", "float32", "bfloat16")


def option(help: str, default: Any, **settings: Any) -> Any:
    """A field with the line that `--help` shows for it; `group` puts it under a heading."""
    return field(default=default, metadata={"help": help, **settings})


@final
@dataclass(frozen=True, kw_only=True)
class TrainOptions:
    """A training run: its data, model, length, and optimization.

    Args:
        files: files of pairs, "-" for standard input, or "datasets:NAME".
        out: the run's folder, which is made; started again with the same options, it resumes.
        start: a run's folder to go on from: its weights, tokenizer and model; the optimizer starts anew.
        model_settings: fields of the model's configuration, by name.
        attention: the values of its attention, as `AttentionConfig.from_plain` takes them.

    Other fields: see their help text. All sizes are in tokens after the subword tokenizer.

    Raises:
        ConfigError: a value that is out of range or unknown, or two that exclude each other.
    """

    files: tuple[str, ...] = option(
        "Records to train on: TSV, CSV, JSONL, JSON, Parquet; .gz or .zst; - for standard input.", ()
    )
    task: str = option(f"The job: {', '.join(TRAINED)}, or module:Class of your own.", "translate", group="run")
    task_settings: Mapping[str, Any] | None = option("A setting of the job: --task.NAME VALUE.", None, group="run")
    out: str = option("Folder of the run.", "run", group="run")
    start: str | None = option(
        "Model to fine-tune: en-it, a run's folder, or a published encoder to classify with.",
        None,
        group="run",
        flag="--from",
    )

    parallel: tuple[str, str] | None = option(
        "Two files, a sentence a line: sources, targets.", None, group="data", metavar=("SOURCES", "TARGETS")
    )
    fields: Mapping[str, str] | None = option(
        "The field of a part of each record, or the number of its column: --field.source en.", None, group="data"
    )
    source_field: str | None = option("The same as --field.source.", None, group="data")
    target_field: str | None = option("The same as --field.target.", None, group="data")
    format: str | None = option(
        "tsv, csv, jsonl, json or parquet; by default as the files' names end.", None, group="data"
    )
    delimiter: str | None = option(
        "Character between the columns of CSV; by default as the rows agree.", None, group="data", metavar="C"
    )
    valid: str | None = option(
        "File of held-out records; by default a part of the others, chosen by hash.", None, group="data"
    )
    held_out: int = option("Records to hold out, at most 5% of all.", 2000, group="data")
    skip_bad_rows: bool = option("Count and skip bad rows instead of stopping.", False, group="data")
    vocab_size: int | None = option(
        "Subwords of the tokenizer, 8,000 by default; 20,000 words for pointer-generator.", None, group="data"
    )
    max_tokens: int = option(
        "Longest text, in tokens; longer pairs are left out, longer documents are cut.", 256, group="data"
    )

    model: str | None = option(
        "transformer, rnn, luong, convs2s; pointer-generator to summarize; by default the job's own.",
        None,
        group="model",
    )
    size: str | None = option("tiny, small, base or big.", None, group="model")
    model_settings: Mapping[str, Any] | None = option("A field of the model: --model.FIELD VALUE.", None, group="model")
    attention: Mapping[str, Any] | None = option(
        "A value of its attention: --attention.PART KIND.", None, group="model"
    )
    dropout: float | None = option("Dropout; the model's own by default.", None, group="model")

    minutes: float | None = option("Time to train, in minutes, evaluation included.", None, group="length")
    steps: int | None = option("Steps to train.", None, group="length")
    epochs: float | None = option("Passes over the data; 10 if no length is given.", None, group="length")
    patience: int | None = option("Stop after so many evaluations without improvement.", None, group="length")
    evaluate_every: int | None = option(
        "Steps between evaluations; 20 in a run by default, at least 50 apart.", None, group="length"
    )
    checkpoint_every: int = option("Steps between checkpoints.", 200, group="length")

    batch_tokens: int = option("Tokens of a batch, padding included.", 2048, group="optimization")
    accumulate: int = option("Batches whose gradients are accumulated for a step.", 1, group="optimization")
    learning_rate: float | None = option(
        "Peak learning rate; by default 1e-3, 2e-4 with --from, and the paper's with its schedule.",
        None,
        group="optimization",
    )
    schedule: str = option("linear, cosine, paper or constant, after the warm-up.", "linear", group="optimization")
    warmup: int | None = option("Warm-up steps; by default 5% of all, at most 4,000.", None, group="optimization")
    optimizer: str = option("adamw or sgd.", "adamw", group="optimization")
    weight_decay: float = option("Weight decay of AdamW.", 0.01, group="optimization")
    clip: float | None = option("Gradient clipping: the largest norm.", 1.0, group="optimization")
    label_smoothing: float = option(
        "Label smoothing: share of the target's probability spread over all tokens.", 0.1, group="optimization"
    )
    average: int = option("Checkpoints averaged at the end; 1: only the last.", 1, group="optimization")
    seed: int = option("Random seed of the weights, the order of the data, and dropout.", 1, group="optimization")

    precision: str = option("auto, float32 or bfloat16; auto is bfloat16 where it is fast.", "auto", group="machine")
    threads: int | None = option("Threads; all cores by default.", None, group="machine")
    device: str = option("auto, cpu, cuda or mps.", "auto", group="machine")
    tensorboard: bool = option("Write TensorBoard's events too.", False, group="machine")

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
        given = {name: x for name, x in lengths.items() if x is not None}
        if len(given) > 1:
            raise ConfigError(f"{' and '.join(f'{n}={x}' for n, x in given.items())}: give one of them")
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
        _check(self, "threads", lambda x: 1 <= x <= MOST_THREADS, f"from 1 to {MOST_THREADS}")
        _check(self, "seed", lambda x: 0 <= x < 2**63, "at least 0 and below 2^63")
        for name in ("dropout", "label_smoothing"):
            _check(self, name, lambda x: 0 <= x < 1, "at least 0 and below 1")
        _check(
            self, "vocab_size", lambda x: 300 <= x <= MOST_SUBWORDS, f"from 300 (256 bytes and more) to {MOST_SUBWORDS}"
        )


def _check(options: TrainOptions, name: str, right: Any, expected: str) -> None:
    x = getattr(options, name)
    if x is not None and not right(x):
        raise ConfigError(f"{name}={x} must be {expected}")


def _known(name: str, x: str, known: tuple[str, ...]) -> None:
    if x not in known:
        raise ConfigError(f"unknown {name} {x!r}; {nearest(x, known)}")


def to_plain(options: TrainOptions) -> dict[str, Any]:
    """The options as JSON's types, those that are not the default."""
    changed = {f.name: getattr(options, f.name) for f in fields(options)}
    return {n: list(x) if isinstance(x, tuple) else x for n, x in changed.items() if x != _default(n)}


def _default(name: str) -> Any:
    return next(f.default for f in fields(TrainOptions) if f.name == name)
