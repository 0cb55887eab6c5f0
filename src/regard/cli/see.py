"""`regard see`."""

import os
import shlex
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import click

from regard.cli.command import FILE, Argument, Command, Count, Option, Suggested
from regard.cli.pictures import are_pictures
from regard.cli.see_media import refuse, see_picture, see_sound, view_sound
from regard.cli.shared import (
    accepted,
    length_flags,
    model_flags,
    open_for,
    prefix_flags,
    search_flags,
    search_if_said,
)
from regard.cli.texts import file_texts, refuse_file
from regard.errors import UnsupportedError

if TYPE_CHECKING:
    from regard.lens.view import View

BINS = Count(1024)
GRID = 64


def run(
    text: str | None,
    file: str | None,
    target: str | None,
    kind: str | None,
    layer: int | None,
    head: int | None,
    grid: int | None,
    html: str | None,
    png: str | None,
    svg: str | None,
    npz: str | None,
    as_json: str | None,
    start: float | None,
    prefix: str | None,
    task: str | None,
    max_length: int | None,
    whole: bool | None,
    model: str | None,
    threads: int | None,
    device: str,
    **how: object,
) -> None:
    """Show a model's attention in a text that it reads or generates: in the terminal, as a picture, as a page."""
    for suffix, name in ((".png", png), (".svg", svg), (".npz", npz), (".json", as_json)):
        if name is not None and Path(name).suffix.lower() != suffix:
            raise click.UsageError(f"--{suffix[1:]} {name}: the name must end in {suffix}")
    kind_of_file = _media(text) if text is not None and file is None else None
    binned_sound = kind_of_file == "sound" and grid is not None
    if text is not None and kind_of_file is not None and not binned_sound:
        shared = {"html": html, "png": png, "layer": layer, "head": head}
        shared |= {"model": model, "threads": threads, "device": device}
        refuse(kind_of_file, {"target": target, "grid": grid, "prefix": prefix, "task": task})
        refuse(kind_of_file, {"kind": kind, "svg": svg}, "" if kind_of_file == "picture" else " without --grid")
        if kind_of_file == "sound":
            see_sound(text, npz=npz, as_json=as_json, start=start, **shared)
        else:
            refuse("picture", {"npz": npz, "json": as_json, "start": start})
            see_picture(text, **shared)
        return
    search = search_if_said(how)
    settings = {
        "target": target, "search": search, "prefix": prefix, "task": task, "max_length": max_length, "whole": whole,
    }  # fmt: skip
    settings = {name: x for name, x in settings.items() if x is not None}
    if binned_sound and text is not None:
        refuse("sound", settings)
        view = view_sound(text, start=start, grid=grid, model=model, threads=threads, device=device)
        result = SeeResult(view, lambda: view)
    elif start is not None:
        raise click.UsageError("--start is for sounds; leave it out")
    else:
        result = _see(_text(text, file), file, grid, settings, model, threads, device)
    _write(result, kind=kind, layer=layer, head=head, html=html, png=png, svg=svg, npz=npz, as_json=as_json)


def _write(
    result: "SeeResult",
    *,
    kind: str | None,
    layer: int | None,
    head: int | None,
    html: str | None,
    png: str | None,
    svg: str | None,
    npz: str | None,
    as_json: str | None,
) -> None:
    """Draw one map in the terminal and as pictures, and write all of them as a page and files."""
    from regard.lens import files, page, picture, terminal

    chosen = result.maps.map(kind or result.maps.kinds[0], layer=layer, head=head)
    drawn = terminal.draw(chosen)
    click.echo(f"{result.written}\n\n{drawn}" if result.written else drawn)
    if any((html, npz, as_json)):
        view = result.view()
        if html is not None:
            Path(html).write_text(page.page(view), encoding="utf-8")
        for name in (npz, as_json):
            if name is not None:
                files.save(view, name)
    for name in (png, svg):
        if name is not None:
            with warnings.catch_warnings(record=True) as warned:
                picture.save(chosen, name)
            for line in dict.fromkeys(str(one.message) for one in warned):
                click.echo(line, err=True)
    left_out = picture.simplified(chosen)
    for name, note in ((html, ""), (npz, ""), (as_json, ""), (png, left_out), (svg, left_out)):
        if name is not None:
            click.echo(f"wrote {name}{note and ': '}{note}", err=True)
    for note in getattr(result.maps, "notes", ()):
        click.echo(note, err=True)
    if not result.finished:
        click.echo("the translation was cut at its greatest length; raise it with --max-length", err=True)


def _media(text: str) -> Literal["picture", "sound"] | None:
    """Whether a text is the name of a picture's or a sound's file; None of neither."""
    from regard.audio.sound import is_sound_name

    if are_pictures([text]):
        return "picture"
    return "sound" if is_sound_name(Path(text)) and os.path.isfile(text) else None  # noqa: PTH113 - any text may come


def _text(text: str | None, file: str | None) -> str:
    """The text of the command line or of a file."""
    if file is not None and text is None:
        return "\n".join(file_texts(file)).strip()
    if text is None or file is not None:
        raise click.UsageError("give a text, or --file FILE, and not both")
    name = shlex.quote(text)
    refuse_file(text, f"regard see --file {name}", f"regard see {shlex.quote(' ' + text)}")
    return text


class SeeResult(NamedTuple):
    """Attention of a model in one text, and the text that it generated."""

    maps: Any  # an Alignment or a View, which the terminal and pictures draw
    view: Callable[[], "View"]  # what pages and files hold
    written: str = ""  # the text that the model wrote
    finished: bool = True  # whether it came to an end


def _see(
    text: str, file: str | None, grid: int | None, settings: dict[str, Any], model: str | None, threads: int | None,
    device: str,
) -> SeeResult:  # fmt: skip
    """Attention of a model in a text, or between a text and its translation."""
    try:
        opened = open_for("see", model, threads, device)
    except UnsupportedError:
        if model is None or settings:
            raise
        from regard.lens.checkpoint import view_checkpoint

        view = view_checkpoint(model, text, grid=grid or GRID)
        return SeeResult(view, lambda: view)
    if file is None and grid is None:
        alignment = opened.see(text, **accepted(opened, "see", settings))
        if hasattr(opened, "explain"):
            return SeeResult(alignment, lambda: opened.explain(text), " ".join(alignment.target[:-1]))
        written = " ".join(alignment.target[:-1])
        return SeeResult(alignment, lambda: alignment.view(title=written or text), written, alignment.finished)
    if not hasattr(opened, "view"):
        kind = type(opened).__name__
        raise click.UsageError(f"--file and --grid are for models that read one text; this is a {kind}")
    view = opened.view(text, **accepted(opened, "view", {"grid": grid or GRID, **settings}))
    return SeeResult(view, lambda: view)


command = Command(
    "see",
    run,
    params=[
        Argument(
            "text",
            about="What the model reads: one or a few sentences, or the name of a picture or sound.",
            required=False,
        ),
        Option(["--file"], type=FILE, metavar="FILE", help="Read the text from a file; it may be long."),
        Option(["--target"], metavar="TEXT", help="A translation to look at; default: the model's own."),
        Option(["--html"], type=FILE, metavar="FILE", help="Write a page with all layers and heads, for any browser."),
        Option(["--png"], type=FILE, metavar="FILE", help="Write a picture."),
        Option(["--svg"], type=FILE, metavar="FILE", help="Write a picture that scales."),
        Option(["--npz"], type=FILE, metavar="FILE", help="Write the maps as NumPy arrays; a page opens them too."),
        Option(["--json", "as_json"], type=FILE, metavar="FILE", help="Write the maps as JSON; a page opens them too."),
        Option(["--start"], type=float, metavar="SECONDS", help="Start of the window of a sound.  [default: 0]"),
        Option(
            ["--grid"],
            type=BINS,
            help="Show tokens, or all attention over a sound, in bins, at most this many on a side; 64 with --file.",
        ),
        Option(
            ["--kind"],
            type=Suggested("cross", "encoder", "decoder", "text"),
            metavar="KIND",
            help="cross, encoder, decoder or text; default: the first that the model has.",
        ),
        Option(["--layer"], type=Count(), help="Layer, counted from 1; default: the mean of all."),
        Option(["--head"], type=Count(), help="Head, counted from 1; default: the mean of all."),
        *model_flags(),
        *prefix_flags(),
        *search_flags(),
        *length_flags(),
    ],
    examples=[
        'regard see "This package contains the documentation." --html attention.html --png attention.png',
        "regard see --file book.txt --model openai-community/gpt2 --grid 256 --html page.html",
        "regard see photo.jpg --model runs/clothes --html looked.html --png looked.png",
        "regard see prompt.wav --model openai/whisper-base --html heard.html",
        "regard see prompt.wav --model openai/whisper-base --grid 64 --kind encoder --html maps.html",
    ],
)
