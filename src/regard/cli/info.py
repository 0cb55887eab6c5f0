"""`regard info`."""

import json
import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import click

from regard.cli.command import FOLDER, Argument, Command, Option
from regard.cli.shared import METHODS
from regard.errors import CheckpointError

METRICS = "metrics.jsonl"
NAME = 24  # columns


def run(folder: str | None, as_json: bool) -> None:
    """Explain a run's folder, or one of a published checkpoint: its model, size, settings, training and scores."""
    from regard.checkpoints import hub
    from regard.checkpoints.shipped import model_folder

    place = model_folder(folder)
    found = describe_published(place) if hub.is_hub(place) else describe(place)
    click.echo(json.dumps(found, indent=2, ensure_ascii=False) if as_json else "\n".join(_lines(found)))


def describe(folder: Path) -> dict[str, Any]:
    """What the files of a folder say, by subject; a run that has no weights yet is no error."""
    from regard.checkpoints import folder as folders

    config = folders.read_config(folder)
    found: dict[str, Any] = {"folder": str(folder), "task": config["task"], "model": config["model"]}
    if (folder / folders.WEIGHTS).is_file():
        weights = folders.read_weights_info(folder)
        found["weights"] = {"parameters": weights.numbers, "bytes": weights.size, "dtype": ", ".join(weights.dtypes)}
    else:
        found["weights"] = "none yet; the same `regard train` command goes on"
    found |= {name: x for name, x in config.items() if name not in ("format", "task", "model")}
    if metrics := last_metrics(folder / METRICS):
        found["last metrics"] = metrics
    return found


def describe_published(folder: Path) -> dict[str, Any]:
    """What the files of a published checkpoint say, by subject, and what of it is refused; no tensor is read."""
    from regard.checkpoints import hub
    from regard.checkpoints.families import FAMILIES
    from regard.checkpoints.generation import GENERATION_FIELDS, IRRELEVANT, MARKS, generation_config
    from regard.errors import RegardError
    from regard.models.text_encoder import TextEncoder
    from regard.tasks.registry import runner_class

    layout = hub.layout_of(folder)
    config, state, tokenizer = hub.read_hub(folder if layout is None else layout.transformer)
    family = FAMILIES[config["model_type"]]
    verbs = ", ".join(name for name in METHODS if hasattr(runner_class(family.job), name))
    found: dict[str, Any] = {"folder": str(folder), "published model": config["model_type"], "verbs": verbs}
    slices = state.slices()
    numbers = sum(math.prod(part.get_shape()) for part in slices)
    dtypes = ", ".join(sorted({part.get_dtype() for part in slices}))
    found["weights"] = {"parameters": numbers, "tensors": len(slices), "dtype": dtypes}
    found["tokenizer"] = None if tokenizer is None else {"tokens": tokenizer.size, **tokenizer.roles}
    found["config"] = {name: config[name] for name in family.fields.read if config.get(name) is not None}
    if not issubclass(family.module, TextEncoder):
        said = {name: x for name, x in config.items() if name not in IRRELEVANT and x is not None}
        found["generation"] = {name: x for name, x in said.items() if name in GENERATION_FIELDS - {*MARKS}}
        try:
            found["search"] = str(generation_config(config).search)
        except RegardError as error:
            found["search"] = f"refused: {error}"
    if layout is not None:
        embedding = layout.embedding
        found["embedding"] = {
            "pooling": embedding.pooling,
            "steps": [type(step).__name__ for step in embedding.steps],
            "longest": embedding.longest,
            "prompts": dict(embedding.prompts),
            "similarity": embedding.similarity,
        }
    return found


def last_metrics(path: Path) -> dict[str, Any]:
    """The last value of each metric in a file of JSON lines, empty if there is no such file."""
    latest: dict[str, Any] = {}
    if not path.is_file():
        return latest
    with path.open(encoding="utf-8", errors="replace") as lines:
        for number, line in enumerate(lines, start=1):
            try:
                row = json.loads(line)
            except (ValueError, RecursionError) as error:
                if not line.endswith("\n"):
                    break  # a run that was killed while it wrote, or that is writing now
                raise CheckpointError(f"{path}:{number} is not JSON: {error}") from error
            latest |= row if isinstance(row, dict) else {}
    return latest


def _lines(found: Mapping[str, Any], indent: str = "") -> Iterator[str]:
    for name, x in found.items():
        if isinstance(x, Mapping) and x:
            yield f"{indent}{name}"
            yield from _lines(x, indent + "  ")
        else:
            yield f"{indent}{name:<{NAME - len(indent) - 1}} {_text(name, x)}"


def _text(name: str, x: Any) -> str:
    if x is None or x == {}:
        return "none"
    if isinstance(x, list):
        return ", ".join(_text(name, one) for one in x)
    if isinstance(x, float):
        return f"{x:,.4g}"
    if isinstance(x, int) and not isinstance(x, bool):
        return f"{x / 1e6:,.1f} MB" if name == "bytes" else f"{x:,}"
    return str(x)


command = Command(
    "info",
    run,
    params=[
        Argument(
            "folder",
            about="A run's folder, or a published checkpoint's; by default the model that regard ships.",
            required=False,
            type=FOLDER,
        ),
        Option(["--json", "as_json"], is_flag=True, help="Print JSON."),
    ],
    examples=["regard info runs/en-it"],
)
