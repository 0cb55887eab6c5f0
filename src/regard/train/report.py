"""What a run says while it goes on: a live line, `metrics.jsonl`, and TensorBoard's events if asked for."""

import json
import math
import sys
import time
from pathlib import Path
from types import TracebackType
from typing import Any, TextIO, final

from regard.errors import ConfigError

METRICS = "metrics.jsonl"
LIVE, QUIET = 0.5, 30.0  # seconds between lines: on a terminal, where each replaces the last, and elsewhere


@final
class Report:
    """Lines for people, and records for programs.

    Args:
        folder: of the run.
        since: the step that the run goes on from; records of later steps are dropped, for they will come again.
        tensorboard: whether to write its events.
        stream: where the lines go; None for nowhere, as in all processes but the first.

    Raises:
        ConfigError: TensorBoard that is not installed.
    """

    def __init__(self, folder: Path, *, since: int, tensorboard: bool, stream: TextIO | None = sys.stderr) -> None:
        self.path, self.stream = folder / METRICS, stream
        self.live = stream is not None and stream.isatty()
        self._last, self._open_line, self._unread = 0.0, False, False
        self._events = _tensorboard(folder) if tensorboard and stream is not None else None
        if stream is not None:
            _forget_after(self.path, since)

    def __enter__(self) -> "Report":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._end_line()
        if self._events is not None:
            self._events.close()

    def say(self, text: str) -> None:
        """A line that stays."""
        if self.stream is not None:
            self._end_line()
            self._print(text)

    def progress(self, text: str) -> None:
        """A line that the next one replaces; elsewhere than on a terminal, one now and then."""
        now = time.monotonic()
        if self.stream is None or now - self._last < (LIVE if self.live else QUIET):
            return
        self._last = now
        self._print(f"\r\x1b[2K{text}" if self.live else text, end="" if self.live else "\n")
        self._open_line = self.live

    def record(self, step: int, **values: Any) -> None:
        """A record of a step, for programs."""
        if self.stream is None:
            return
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps({"step": step, **values}, ensure_ascii=False) + "\n")
        if self._events is not None:
            for name, x in values.items():
                if isinstance(x, int | float):
                    self._events.add_scalar(name, x, step)

    def _end_line(self) -> None:
        if self._open_line:
            self._print("")
        self._open_line = False

    def _print(self, text: str, end: str = "\n") -> None:
        """Print, until nobody reads any more: a terminal that has been closed ends no training."""
        if self.stream is not None and not self._unread:
            try:
                print(text, end=end, file=self.stream, flush=True)
            except OSError:
                self._unread = True


def perplexity(loss: float) -> float:
    """exp(loss), infinity where that is too large to be said."""
    return math.exp(loss) if loss < 700 else math.inf


def duration(seconds: float) -> str:
    """Hours and minutes, or minutes and seconds: "1 h 05 min", "3 min 20 s"."""
    whole = max(0, round(seconds))
    if whole >= 3600:
        return f"{whole // 3600} h {whole % 3600 // 60:02} min"
    return f"{whole // 60} min {whole % 60:02} s" if whole >= 60 else f"{whole} s"


def _forget_after(path: Path, step: int) -> None:
    """Drop records of steps that will come again, and a last one that was cut off."""
    kept = []
    if path.exists():
        for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
            try:
                if json.loads(line)["step"] <= step:
                    kept.append(line)
            except (ValueError, KeyError, TypeError):
                continue
    partial = path.with_suffix(".partial")
    partial.write_text("".join(line + "\n" for line in kept), encoding="utf-8")
    partial.replace(path)


def _tensorboard(folder: Path) -> Any:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        raise ConfigError("tensorboard=True needs its package: pip install 'regard[tensorboard]'") from error
    return SummaryWriter(folder / "tensorboard")
