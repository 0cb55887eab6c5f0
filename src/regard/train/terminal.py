"""Terminals: the rich console of a stream that is one, and the progress bar that is drawn on it.

rich is imported when there is a terminal to draw on, so that help and piped output need not wait for it.
"""

from typing import TYPE_CHECKING, TextIO

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress


def terminal(stream: TextIO | None) -> "Console | None":
    """Rich console of a stream, or None if the stream is a file, a pipe or None.

    Only the stream decides: FORCE_COLOR and the like must not put escape sequences into files. Text is printed as it
    is, without markup, emoji codes or highlighting.
    """
    if stream is None or not stream.isatty():
        return None
    from rich.console import Console

    return Console(file=stream, markup=False, emoji=False, highlight=False)


def progress_bar(console: "Console") -> "Progress":
    """Progress bar with one line of text, which is removed at the end and drawn only by `update(..., refresh=True)`.

    It starts no thread: a terminal that has been closed raises OSError where the caller can catch it.
    """
    from rich.progress import BarColumn, Progress, TextColumn
    from rich.table import Column

    text = TextColumn("{task.description}", markup=False, table_column=Column(no_wrap=True, overflow="ellipsis"))
    bar = BarColumn(bar_width=None, table_column=Column(ratio=1, min_width=8))
    return Progress(
        text,
        bar,
        console=console,
        auto_refresh=False,
        transient=True,
        expand=True,
        redirect_stdout=False,  # results may go elsewhere than the bar
    )
