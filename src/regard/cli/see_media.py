"""`regard see` of pictures and sounds."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from regard.cli.output import on_terminal
from regard.cli.pictures import check_reads
from regard.cli.shared import open_for
from regard.errors import UnsupportedError

if TYPE_CHECKING:
    from regard.lens.sound_maps import SoundMaps
    from regard.lens.view import View


def refuse(kind: str, options: Mapping[str, Any], why: str = "") -> None:
    """UsageError for options, by name, that a picture or a sound does not have, as `why` says."""
    for name, x in options.items():
        if x is not None:
            raise click.UsageError(f"--{name.replace('_', '-')} is not for {kind}s{why}; leave it out")


def see_picture(
    name: str,
    *,
    html: str | None,
    png: str | None,
    layer: int | None,
    head: int | None,
    model: str | None,
    threads: int | None,
    device: str,
) -> None:
    """Show what a model looks at in a picture: the rollout in the terminal, or a layer's or head's attention."""
    runner = open_for("see", model, threads, device)
    check_reads(runner, "see", pictures=True)
    maps = runner.see(name)
    chosen = maps.map("attention", layer=layer, head=head) if layer or head else None
    click.echo(maps.terminal(chosen, color=on_terminal() is not None))
    if maps.label:
        click.echo(f"{maps.label} {maps.probability:.4f}" if maps.probability else maps.label)
    _write({html: maps.page, png: maps.png})


def see_sound(
    name: str,
    *,
    html: str | None,
    png: str | None,
    npz: str | None,
    as_json: str | None,
    start: float | None,
    layer: int | None,
    head: int | None,
    model: str | None,
    threads: int | None,
    device: str,
) -> None:
    """Show what a model looks at in a sound as it writes each word: heads that give times, or one head."""
    if (layer is None) != (head is None):
        raise click.UsageError(
            "give --layer and --head together, or neither: then the heads that give words their times"
        )
    runner = open_for("see", model, threads, device)
    _check_reads_sound(runner, name)
    maps = runner.see(name, start=start or 0.0)
    number = None if layer is None else _head_number(maps, layer, head)
    click.echo(maps.terminal(number))
    click.echo(maps.text)
    if maps.note:
        click.echo(maps.note, err=True)
    _write({html: maps.page, png: lambda file: maps.png(file, number), npz: maps.save, as_json: maps.save})


def view_sound(
    name: str, *, start: float | None, grid: int | None, model: str | None, threads: int | None, device: str
) -> "View":
    """All attentions of a model over a sound, in bins."""
    runner = open_for("see", model, threads, device)
    _check_reads_sound(runner, name)
    if not hasattr(runner, "view"):
        raise click.UsageError(f"--grid is not for models of this kind ({type(runner).__name__}); leave it out")
    view: View = runner.view(name, start=start or 0.0, grid=grid)
    return view


def _check_reads_sound(runner: Any, name: str) -> None:
    """UnsupportedError of a model that reads no sound."""
    if runner.job not in ("transcribe", "recognize"):
        raise UnsupportedError(
            f"{name} is a sound, and the model, of the kind {type(runner).__name__}, reads none; give a model that "
            "transcribes: --model"
        )


def _head_number(maps: "SoundMaps", layer: int, head: int | None) -> int:
    """Number of a layer's head among those of the maps, from 1."""
    name = f"layer {layer}, head {head}"
    if name not in maps.heads:
        raise click.UsageError(f"the model has no {name}; it shows {maps.heads[0]} to {maps.heads[-1]}")
    return list(maps.heads).index(name) + 1


def _write(writers: Mapping[str | None, Any]) -> None:
    """Write the files whose names are not None."""
    for name, write in writers.items():
        if name is not None:
            write(Path(name))
            click.echo(f"wrote {name}", err=True)
