"""`regard info`."""

import json
import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import click

from regard.cli.command import FOLDER, Argument, Command, Option
from regard.cli.output import on_terminal, print_tree
from regard.cli.shared import METHODS
from regard.errors import CheckpointError

METRICS = "metrics.jsonl"
NAME_WIDTH = 24  # characters


def run(folder: str | None, as_json: bool) -> None:
    """Describe the folder of a run or of a published checkpoint: model, size, settings, training and scores."""
    from regard.checkpoints import hub
    from regard.checkpoints.shipped import model_folder

    path = model_folder(folder)
    info = describe_published(path) if hub.is_hub(path) else describe(path)
    console = on_terminal()
    if as_json:
        click.echo(json.dumps(info, indent=2, ensure_ascii=False))
    elif console is not None:
        print_tree(console, _lines(info))
    else:
        for depth, name, text in _lines(info):
            indent = "  " * depth
            click.echo(f"{indent}{name:<{NAME_WIDTH - len(indent) - 1}} {text}" if text else f"{indent}{name}")


def describe(folder: Path) -> dict[str, Any]:
    """Description of a run's folder by subject; the run may have no weights yet."""
    from regard.checkpoints import folder as folders

    config = folders.read_config(folder)
    info: dict[str, Any] = {"folder": str(folder), "task": config["task"], "model": config["model"]}
    if (folder / folders.WEIGHTS).is_file():
        weights = folders.read_weights_info(folder)
        info["weights"] = {"parameters": weights.numbers, "bytes": weights.size, "dtype": ", ".join(weights.dtypes)}
    else:
        info["weights"] = "none yet; the same `regard train` command resumes the run"
    info |= {name: x for name, x in config.items() if name not in ("format", "task", "model")}
    if metrics := last_metrics(folder / METRICS):
        info["last metrics"] = metrics
    return info


def describe_published(folder: Path) -> dict[str, Any]:
    """Description of a published checkpoint by subject, with what regard refuses of it; no tensor is read."""
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
    info: dict[str, Any] = {"folder": str(folder), "published model": config["model_type"], "verbs": verbs}
    slices = state.slices()
    numbers = sum(math.prod(part.get_shape()) for part in slices)
    dtypes = ", ".join(sorted({part.get_dtype() for part in slices}))
    info["weights"] = {"parameters": numbers, "tensors": len(slices), "dtype": dtypes}
    info["tokenizer"] = None if tokenizer is None else {"tokens": tokenizer.size, **tokenizer.roles}
    info["config"] = {name: config[name] for name in family.fields.read if config.get(name) is not None}
    if not issubclass(family.module, TextEncoder):
        settings = {name: x for name, x in config.items() if name not in IRRELEVANT and x is not None}
        info["generation"] = {name: x for name, x in settings.items() if name in GENERATION_FIELDS - {*MARKS}}
        try:
            info["search"] = str(generation_config(config).search)
        except RegardError as error:
            info["search"] = f"refused: {error}"
    if layout is not None:
        embedding = layout.embedding
        info["embedding"] = {
            "pooling": embedding.pooling,
            "steps": [type(step).__name__ for step in embedding.steps],
            "max_length": embedding.max_length,
            "prompts": dict(embedding.prompts),
            "similarity": embedding.similarity,
        }
    return info


def last_metrics(path: Path) -> dict[str, Any]:
    """Last value of each metric in a file of JSON lines; empty if there is no such file."""
    latest: dict[str, Any] = {}
    if not path.is_file():
        return latest
    with path.open(encoding="utf-8", errors="replace") as lines:
        for number, line in enumerate(lines, start=1):
            try:
                row = json.loads(line)
            except (ValueError, RecursionError) as error:
                if not line.endswith("\n"):
                    break  # the run was killed while writing, or is writing now
                raise CheckpointError(f"{path}:{number} is not JSON: {error}") from error
            latest |= row if isinstance(row, dict) else {}
    return latest


def _lines(info: Mapping[str, Any], depth: int = 0) -> Iterator[tuple[int, str, str]]:
    """Depth, name and text of each value; the text of a heading is empty."""
    for name, x in info.items():
        if isinstance(x, Mapping) and x:
            yield depth, name, ""
            yield from _lines(x, depth + 1)
        else:
            yield depth, name, _text(name, x)


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
            about="Folder of a run or of a published checkpoint; by default, the model that regard ships.",
            required=False,
            type=FOLDER,
        ),
        Option(["--json", "as_json"], is_flag=True, help="Print JSON."),
    ],
    examples=["regard info runs/en-it"],
)
