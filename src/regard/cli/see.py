"""`regard see`."""

from pathlib import Path

import click

from regard.cli.command import Command, Count, Flag, Words
from regard.cli.shared import model_flags, open_for, search_flags, search_if_said


def run(
    text: str,
    target: str | None,
    kind: str | None,
    layer: int | None,
    head: int | None,
    html: str | None,
    png: str | None,
    svg: str | None,
    model: str | None,
    threads: int | None,
    **how: object,
) -> None:
    """Show what each word of a translation, or of a text, attends to: in the terminal, as pictures, as a page."""
    for suffix, file in ((".png", png), (".svg", svg)):
        if file is not None and Path(file).suffix.lower() != suffix:
            raise click.UsageError(f"--{suffix[1:]} {file}: the name must end in {suffix}")
    search = search_if_said(how)
    opened = open_for("see", model, threads)
    from regard.lens import page, picture, terminal
    from regard.trained.completer import Completer
    from regard.trained.encoder import Encoder

    if isinstance(opened, Completer | Encoder):
        if target is not None:
            raise click.UsageError("--target needs a model that translates; this one reads one text")
        alignment = opened.see(text)
    else:
        alignment = opened.see(text, target, search=search)
    heat_map = alignment.map(kind or alignment.kinds[0], layer=layer, head=head)
    written = " ".join(alignment.target[:-1])
    click.echo(f"{written}\n\n{terminal.draw(heat_map)}" if written else terminal.draw(heat_map))
    if html is not None:
        Path(html).write_text(page.page(alignment, title=text), encoding="utf-8")
    for file in (png, svg):
        if file is not None:
            picture.save(heat_map, file)
    for file in (html, png, svg):
        if file is not None:
            click.echo(f"wrote {file}", err=True)


command = Command(
    "see",
    run,
    params=[
        Words("text", about="What the model reads: one or a few sentences.", required=True),
        Flag(["--target"], metavar="TEXT", help="A translation to look at; by default the model's own."),
        Flag(["--html"], metavar="FILE", help="Write a page to explore all layers and heads; it needs no network."),
        Flag(["--png"], metavar="FILE", help="Write a picture."),
        Flag(["--svg"], metavar="FILE", help="Write a picture that scales."),
        Flag(["--kind"], metavar="KIND", help="cross, encoder, decoder or text; the first that the model has."),
        Flag(["--layer"], type=Count(), help="Counted from 1; by default the mean of all."),
        Flag(["--head"], type=Count(), help="Counted from 1; by default the mean of all."),
        *model_flags(),
        *search_flags(),
    ],
    examples=['regard see "This package contains the documentation." --html attention.html --png attention.png'],
)
