"""`regard see`."""

import shlex
from pathlib import Path

import click

from regard.cli.command import FILE, Argument, Command, Count, Option, Suggested
from regard.cli.shared import (
    accepted,
    length_flags,
    model_flags,
    open_for,
    prefix_flags,
    search_flags,
    search_if_said,
)
from regard.cli.texts import refuse_file


def run(
    text: str,
    target: str | None,
    kind: str | None,
    layer: int | None,
    head: int | None,
    html: str | None,
    png: str | None,
    svg: str | None,
    prefix: str | None,
    task: str | None,
    max_length: int | None,
    whole: bool | None,
    model: str | None,
    threads: int | None,
    device: str,
    **how: object,
) -> None:
    """Show what each word that a model reads or writes attends to: in the terminal, as pictures, as a page."""
    for suffix, file in ((".png", png), (".svg", svg)):
        if file is not None and Path(file).suffix.lower() != suffix:
            raise click.UsageError(f"--{suffix[1:]} {file}: the name must end in {suffix}")
    name = shlex.quote(text)
    refuse_file(text, f'regard see "$(cat {name})"', f"regard see {shlex.quote(' ' + text)}")
    search = search_if_said(how)
    opened = open_for("see", model, threads, device)
    from regard.lens import page, picture, terminal

    given = {
        "target": target,
        "search": search,
        "prefix": prefix,
        "task": task,
        "max_length": max_length,
        "whole": whole,
    }
    settings = {name: x for name, x in given.items() if x is not None}
    alignment = opened.see(text, **accepted(opened, "see", settings))
    heat_map = alignment.map(kind or alignment.kinds[0], layer=layer, head=head)
    written = " ".join(alignment.target[:-1])
    click.echo(f"{written}\n\n{terminal.draw(heat_map)}" if written else terminal.draw(heat_map))
    if html is not None:
        Path(html).write_text(page.page(alignment, title=text), encoding="utf-8")
    for file in (png, svg):
        if file is not None:
            picture.save(heat_map, file)
    left_out = picture.simplified(heat_map)
    for file, note in ((html, ""), (png, left_out), (svg, left_out)):
        if file is not None:
            click.echo(f"wrote {file}{note and ': '}{note}", err=True)
    if not alignment.finished:
        click.echo("the translation was cut at its greatest length; raise it with --max-length", err=True)


command = Command(
    "see",
    run,
    params=[
        Argument("text", about="What the model reads: one or a few sentences.", required=True),
        Option(["--target"], metavar="TEXT", help="A translation to look at; by default the model's own."),
        Option(
            ["--html"],
            type=FILE,
            metavar="FILE",
            help="Write a page to explore all layers and heads; it needs no network.",
        ),
        Option(["--png"], type=FILE, metavar="FILE", help="Write a picture."),
        Option(["--svg"], type=FILE, metavar="FILE", help="Write a picture that scales."),
        Option(
            ["--kind"],
            type=Suggested("cross", "encoder", "decoder", "text"),
            metavar="KIND",
            help="cross, encoder, decoder or text; the first that the model has.",
        ),
        Option(["--layer"], type=Count(), help="Counted from 1; by default the mean of all."),
        Option(["--head"], type=Count(), help="Counted from 1; by default the mean of all."),
        *model_flags(),
        *prefix_flags(),
        *search_flags(),
        *length_flags(),
    ],
    examples=['regard see "This package contains the documentation." --html attention.html --png attention.png'],
)
