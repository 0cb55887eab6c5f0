"""Output for people: tables, errors and counts through rich on a terminal, plain text in files and pipes."""

import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import click

from regard.tasks.score_table import ScoreTable
from regard.train.terminal import progress_bar, terminal

if TYPE_CHECKING:
    from rich.console import Console


def on_terminal() -> "Console | None":
    """Rich console of standard output; None where it is a file or a pipe."""
    return terminal(sys.stdout)


def print_table(console: "Console", header: Sequence[str], rows: Iterable[Sequence[str]], *, numbers: int = 0) -> None:
    """Print a table.

    Args:
        console: where to.
        header: names of the columns.
        rows: as many texts each.
        numbers: the last columns, so many, are aligned at the right.
    """
    from rich import box
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD, header_style="bold", pad_edge=False)
    for i, name in enumerate(header):
        is_number = i >= len(header) - numbers
        table.add_column(name, justify="right" if is_number else "left", overflow="fold", no_wrap=is_number)
    for row in rows:
        table.add_row(*row)
    console.print(table)


def print_result(result: Any) -> None:
    """Print a result that has `table()`: as tables on a terminal if it has `parts()`, else as text."""
    console = on_terminal()
    if console is None or not hasattr(result, "parts"):
        click.echo(result.table())
        return
    for part in result.parts():
        if isinstance(part, ScoreTable):
            print_table(console, part.header, part.rows, numbers=len(part.header) - 1)
        elif part:  # tables have empty lines around them
            console.print(part)


def print_tree(console: "Console", lines: Iterable[tuple[int, str, str]]) -> None:
    """Print names and values, indented by depth; a name without a value is a heading.

    Args:
        console: where to.
        lines: depth, name and value of each line.
    """
    from rich.table import Table
    from rich.text import Text

    table = Table.grid("", "", padding=(0, 2))
    table.columns[1].overflow = "fold"
    for depth, name, value in lines:
        table.add_row(Text("  " * depth + name, style="" if value else "bold"), value)
    console.print(table)


def print_error(message: str) -> None:
    """Write the message of an error to standard error."""
    console = terminal(sys.stderr)
    if console is None:
        click.echo(f"regard: error: {message}", err=True)
        return
    from rich.text import Text

    console.print(Text.assemble(("Error: ", "bold red"), message), soft_wrap=True)


@contextmanager
def counting(unit: str, *, shown: bool) -> Iterator[Callable[[int], None]]:
    """Context in which standard error shows how many items are done and how fast, if it is a terminal.

    Args:
        unit: what an item is called, in the plural.
        shown: whether to show it, as where the results don't go to the same terminal.

    Yields:
        A function to call with the number of items that are newly done.
    """
    console = terminal(sys.stderr) if shown else None
    if console is None:
        yield lambda count: None
        return
    start, done = time.perf_counter(), 0

    def state() -> str:
        return f"{done:,} {unit}, {done / (time.perf_counter() - start):,.1f} {unit}/s"

    def add(count: int) -> None:
        nonlocal done
        done += count
        bar.update(task, description=state(), refresh=True)

    with progress_bar(console) as bar:
        console.show_cursor(True)
        task = bar.add_task("", total=None)
        yield add
    if done:
        console.print(state())
