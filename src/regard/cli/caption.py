"""`regard caption`."""

import json
from typing import TYPE_CHECKING

import click

from regard.cli.command import FILE, Argument, Command, Option
from regard.cli.pictures import check_reads, results_of
from regard.cli.shared import SENTENCES, model_flags, open_for

if TYPE_CHECKING:
    from regard.tasks.caption import Caption
    from regard.vision.pictures import Pixels


def run(
    files: tuple[str, ...],
    batch_size: int,
    beam: int,
    as_json: bool,
    model: str | None,
    threads: int | None,
    device: str,
) -> None:
    """Describe pictures: a caption for each on a line, in the order given.

    A file that cannot be read gives an error message; the other files are still described.
    """
    captioner = open_for("caption", model, threads, device)
    check_reads(captioner, "caption", pictures=True)
    from regard.decode.search import Beam

    def captions(pictures: "list[Pixels]") -> "list[Caption]":
        return captioner.caption(pictures, search=Beam(beam), batch_size=batch_size)

    for name, caption in results_of(captioner, files, captions, batch_size):
        if caption is None:
            continue
        if as_json:
            plain = {"picture": name, "caption": caption.text, "score": caption.score, "finished": caption.finished}
            click.echo(json.dumps(plain, ensure_ascii=False))
        else:
            click.echo(caption.text if len(files) == 1 else f"{name}\t{caption.text}")


command = Command(
    "caption",
    run,
    params=[
        Argument("files", about="Pictures.", nargs=-1, required=True, type=FILE, metavar="FILE..."),
        Option(["--beam"], type=SENTENCES, default=4, show_default=True, help="Width of the beam search."),
        Option(["--batch-size"], type=SENTENCES, default=32, show_default=True, help="Pictures per batch."),
        Option(["--json", "as_json"], is_flag=True, help="Write a line of JSON per picture."),
        *model_flags(),
    ],
    examples=["regard caption *.png --model runs/captions"],
)
