"""Report of a run: messages and a progress bar for people, `metrics.jsonl` and TensorBoard events for programs."""

import contextlib
import functools
import json
import math
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, TextIO, final

from regard.errors import ConfigError
from regard.train.terminal import progress_bar, terminal

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress

METRICS = "metrics.jsonl"
BAR_INTERVAL, LINE_INTERVAL = 0.5, 30.0  # seconds between two states of progress: on a terminal, and elsewhere


@final
class Report:
    """Messages of a run and records of its metrics.

    On a terminal, progress is one bar below the messages; elsewhere it is a plain line now and then.

    Args:
        folder: of the run.
        since: step that the run resumes from; records of later steps are dropped, since they will be written again.
        tensorboard: whether to write TensorBoard events.
        stream: where messages go; None for nowhere, as in all processes but the first.

    Raises:
        ConfigError: TensorBoard is not installed.
    """

    def __init__(self, folder: Path, *, since: int, tensorboard: bool, stream: TextIO | None = sys.stderr) -> None:
        self.path, self.stream, self.terminal = folder / METRICS, stream, terminal(stream)
        self._bar: Progress | None = None
        self._last, self._closed = 0.0, False
        self._events = _tensorboard(folder) if tensorboard and stream is not None else None
        if stream is not None:
            _drop_records_after(self.path, since)

    def __enter__(self) -> "Report":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close_bar()
        if self._events is not None:
            self._events.close()

    def say(self, text: str) -> None:
        """Write a message."""
        if self.terminal is None:
            self._write(lambda: print(text, file=self.stream, flush=True))
        else:
            self._write(functools.partial(self.terminal.print, text, soft_wrap=True))

    def table(self, rows: Mapping[str, str]) -> None:
        """Write texts by name: as a table on a terminal, elsewhere as a line each."""
        if self.terminal is None:
            for name, text in rows.items():
                self.say(f"{name}: {text}")
            return
        from rich.table import Table

        table = Table.grid("", "", padding=(0, 2))
        table.columns[0].style = "bold"
        for name, text in rows.items():
            table.add_row(name, text)
        self._write(functools.partial(self.terminal.print, table))

    def progress(self, text: str, *, done: int = 0, total: int | None = None) -> None:
        """Show how far something has come, at most once an interval.

        Args:
            text: what is being done, with its numbers.
            done: how much of it is done.
            total: how much there is to do; None if unknown.
        """
        now = time.monotonic()
        if now - self._last < (LINE_INTERVAL if self.terminal is None else BAR_INTERVAL):
            return
        self._last = now
        if self.terminal is None:
            self.say(text)
        else:
            self._write(functools.partial(self._draw_bar, self.terminal, text, done, total))

    def _draw_bar(self, console: "Console", text: str, done: int, total: int | None) -> None:
        if self._bar is None:
            self._bar = progress_bar(console)
            self._bar.add_task("", total=None)
            self._bar.start()
            console.show_cursor(True)  # rich hides it, and a process that is killed could not show it again
        self._bar.update(self._bar.task_ids[0], description=text, completed=done, total=total, refresh=True)

    def close_bar(self) -> None:
        """Remove the progress bar, if there is one."""
        if self._bar is not None:
            with contextlib.suppress(OSError):
                self._bar.stop()
        self._bar = None

    def record(self, step: int, **values: Any) -> None:
        """Write the metrics of a step for programs."""
        if self.stream is None:
            return
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps({"step": step, **values}, ensure_ascii=False) + "\n")
        if self._events is not None:
            for name, x in values.items():
                if isinstance(x, int | float):
                    self._events.add_scalar(name, x, step)

    def _write(self, write: Callable[[], object]) -> None:
        """Call a function that writes; a terminal or pipe that has been closed ends the messages, not the training."""
        if self.stream is not None and not self._closed:
            try:
                write()
            except OSError:
                self._closed = True


def perplexity(loss: float) -> float:
    """Perplexity exp(loss); infinity where a float cannot hold it."""
    return math.exp(loss) if loss < 700 else math.inf


def duration(seconds: float) -> str:
    """Text of a duration in hours and minutes, or minutes and seconds: "1 h 05 min", "3 min 20 s"."""
    whole = max(0, round(seconds))
    if whole >= 3600:
        return f"{whole // 3600} h {whole % 3600 // 60:02} min"
    return f"{whole // 60} min {whole % 60:02} s" if whole >= 60 else f"{whole} s"


def _drop_records_after(path: Path, step: int) -> None:
    """Remove the records of later steps, which will be written again, and a last record that was cut off."""
    lines = []
    if path.exists():
        for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
            try:
                if json.loads(line)["step"] <= step:
                    lines.append(line)
            except (ValueError, KeyError, TypeError):
                continue
    partial = path.with_suffix(".partial")
    partial.write_text("".join(line + "\n" for line in lines), encoding="utf-8")
    partial.replace(path)


def _tensorboard(folder: Path) -> Any:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        raise ConfigError(
            "tensorboard=True needs the tensorboard package, which is not installed: pip install 'regard[tensorboard]'"
        ) from error
    return SummaryWriter(folder / "tensorboard")
