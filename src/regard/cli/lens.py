"""`regard lens`: studies of a model's attention over many records."""

import itertools
import json
from collections.abc import Iterator, Sequence
from typing import Any

import click

from regard.cli.command import FILE, Argument, Command, Count, Option
from regard.cli.output import counting, on_terminal, print_table
from regard.cli.shared import model_flags, open_for
from regard.cli.texts import file_texts
from regard.errors import DataError

RECORDS = Count(100_000)
ALIGNED, STUDIED = 200, 100  # records by default


def align(file: str, gold: str, limit: int, as_json: bool, model: str | None, threads: int | None, device: str) -> None:
    """Alignment error rate of cross-attention against hand-made alignments."""
    opened = open_for("translate", model, threads, device)
    from regard.lens.alignment_error import read_gold
    from regard.lens.studies import alignment_study

    pairs = list(itertools.islice(_pairs(file), limit))
    links = [read_gold(line) for line in itertools.islice(file_texts(gold), limit)]
    alignments = [opened.see(source, target) for source, target in _counted(pairs, "pairs")]
    norms = [opened.see(source, target, norms=True) for source, target in pairs]
    rows = [(row.name, *row.error) for row in alignment_study(alignments, pairs, links, norms=norms)]
    _write(("links from", "AER", "precision", "recall"), rows, as_json=as_json)


def heads(file: str, limit: int, as_json: bool, model: str | None, threads: int | None, device: str) -> None:
    """Importance of each head by gradient and by ablation; dead and redundant heads."""
    opened = open_for("evaluate", model, threads, device)
    from regard.lens.losses import loss_of
    from regard.lens.studies import head_study

    lines = list(itertools.islice(_fields(file), limit))
    rows = [
        (
            row.path, row.head, row.importance, row.ablation, row.entropy_share, row.sink_share,
            "dead" if row.dead else "", " ".join(map(str, row.same_as)),
        )
        for row in head_study(opened.module, loss_of(opened, lines))
    ]  # fmt: skip
    names = ("attention", "head", "importance", "loss without", "entropy", "sink", "state", "same as")
    _write(names, rows, as_json=as_json)


def faithful(file: str, limit: int, as_json: bool, model: str | None, threads: int | None, device: str) -> None:
    """Faithfulness of attribution methods: the change of the prediction without the tokens that they select."""
    opened = open_for("classify", model, threads, device)
    from regard.lens.studies import faithfulness_study

    texts = [fields[0] for fields in itertools.islice(_fields(file), limit)]
    measured = faithfulness_study(opened, _counted(texts, "texts"))
    rows = [(name, x.comprehensiveness, x.sufficiency, x.deletion) for name, x in measured.items()]
    _write(("method", "comprehensiveness", "sufficiency", "deletion area"), rows, as_json=as_json)


def _pairs(file: str) -> Iterator[tuple[str, str]]:
    for number, fields in enumerate(_fields(file), start=1):
        if len(fields) < 2:
            raise DataError(f"{file}:{number}: one column; expected a source and a target with a tab between them")
        yield fields[0], fields[1]


def _fields(file: str) -> Iterator[list[str]]:
    """Rows of a file as lists of columns, separated by tabs or as CSV."""
    lines = file_texts(file)
    if ".csv" not in file.lower():
        yield from (line.split("\t") for line in lines)
        return
    import csv

    rows = csv.reader(lines)
    header = next(rows, [])
    chosen = [header.index(name) for name in ("text", "label") if name in header] or list(range(len(header)))
    yield from ([row[i] for i in chosen] for row in rows if row)


def _counted(items: Sequence[Any], name: str) -> Iterator[Any]:
    """The items, counted on a terminal."""
    with counting(name, shown=True) as add:
        for item in items:
            yield item
            add(1)


def _write(names: tuple[str, ...], rows: Sequence[tuple[Any, ...]], *, as_json: bool) -> None:
    if as_json:
        for row in rows:
            click.echo(json.dumps(dict(zip(names, row, strict=True))))
        return
    texts = [tuple(f"{x:.3f}" if isinstance(x, float) else str(x) for x in row) for row in rows]
    console = on_terminal()
    if console is not None:
        print_table(console, names, texts, numbers=len(names) - 1)
        return
    widths = [max(map(len, column)) for column in zip(names, *texts, strict=True)]
    for row in (names, *texts):
        click.echo("  ".join(x.ljust(width) for x, width in zip(row, widths, strict=True)).rstrip())


def _params(about: str, limit: int, *more: Option) -> list[click.Parameter]:
    return [
        Argument("file", about=about, required=True, type=FILE),
        *more,
        Option(["--limit"], type=RECORDS, default=limit, show_default=True, help="Records to read, from the first."),
        Option(["--json", "as_json"], is_flag=True, help="Write a line of JSON per row."),
        *model_flags(),
    ]


command = click.Group(
    "lens",
    help="Studies of what a model attends to, over many records.",
    epilog="\\b\nExamples:\n  regard lens align test.tsv --gold alignments.txt --model runs/en-it\n"
    "  regard lens heads test.tsv --model runs/en-it\n  regard lens faithful reviews.csv --model runs/reviews",
    commands=[
        Command(
            "align",
            align,
            params=_params(
                "Pairs: source TAB target, words split at white space.",
                ALIGNED,
                Option(
                    ["--gold"], type=FILE, required=True, metavar="FILE", help="Alignments: 0-0 sure, 1?2 possible."
                ),
            ),
            examples=["regard lens align test.tsv --gold alignments.txt --model runs/en-it"],
        ),
        Command(
            "heads",
            heads,
            params=_params("Records: source TAB target, or text TAB label; CSV too.", STUDIED),
            examples=["regard lens heads test.tsv --model runs/en-it"],
        ),
        Command(
            "faithful",
            faithful,
            params=_params("Texts: one a line, further columns are ignored; CSV too.", STUDIED),
            examples=["regard lens faithful reviews.csv --model runs/reviews"],
        ),
    ],
)
