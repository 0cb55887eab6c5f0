"""What a run reports: a table, messages and one progress bar on a terminal; plain lines elsewhere."""

import io
import json
import re
from pathlib import Path

import pytest

from regard.train import report as reports
from regard.train.report import Report
from regard.train.terminal import terminal

ESCAPE = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")
ROWS = {"data": "380 pairs", "model": "Transformer, 21,568 parameters"}


class Terminal(io.StringIO):
    """Stream that says it is a terminal, and may be closed like one."""

    closed_by_user = False

    def isatty(self) -> bool:
        return True

    def write(self, text: str) -> int:
        if self.closed_by_user:
            raise OSError(5, "Input/output error")
        return super().write(text)

    @property
    def text(self) -> str:
        """What was written, without colors and movements of the cursor."""
        return ESCAPE.sub("", self.getvalue())


@pytest.fixture(autouse=True)
def every_state(monkeypatch: pytest.MonkeyPatch) -> None:
    """Show each state of progress, whatever the time between them; on a terminal of 80 columns."""
    monkeypatch.setattr(reports, "BAR_INTERVAL", 0.0)
    monkeypatch.setattr(reports, "LINE_INTERVAL", 0.0)
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setenv("TERM", "xterm-256color")


def test_plain_lines_where_there_is_no_terminal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")  # which many build servers set
    stream = io.StringIO()
    with Report(tmp_path, since=0, tensorboard=False, stream=stream) as report:
        report.table(ROWS)
        report.progress("step 1/2", done=1, total=2)
        report.say("[bold] " + "long " * 40 + ":smile:")
    lines = [*(f"{name}: {text}" for name, text in ROWS.items()), "step 1/2", "[bold] " + "long " * 40 + ":smile:"]
    assert stream.getvalue() == "".join(f"{line}\n" for line in lines)


def test_plain_progress_comes_now_and_then(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reports, "LINE_INTERVAL", 1000.0)
    stream = io.StringIO()
    with Report(tmp_path, since=0, tensorboard=False, stream=stream) as report:
        monkeypatch.setattr(report, "_last", -1e9)
        for step in range(1, 9):
            report.progress(f"step {step}/8", done=step, total=8)
    assert stream.getvalue() == "step 1/8\n"


def test_a_table_and_a_bar_on_a_terminal(tmp_path: Path) -> None:
    stream = Terminal()
    with Report(tmp_path, since=0, tensorboard=False, stream=stream) as report:
        report.table(ROWS)
        report.progress("reading: 12,000")
        for step in range(1, 5):
            report.progress(f"step {step}/4  loss 3.210  2,595 tokens/s  3 s left", done=step, total=4)
        report.say("[bold] :smile: stays as it is")
    assert "data   380 pairs" in stream.text
    assert "model  Transformer, 21,568 parameters" in stream.text
    assert "\rreading: 12,000 ━━━" in stream.text
    assert "\rstep 4/4  loss 3.210  2,595 tokens/s  3 s left ━━━" in stream.text
    assert "\r[bold] :smile: stays as it is\n" in stream.text
    assert stream.getvalue().endswith("\x1b[1A\x1b[2K")  # the bar is removed
    assert all(len(line) <= 80 for line in re.split(r"[\r\n]", stream.text))


def test_the_cursor_is_visible_while_the_bar_is_shown(tmp_path: Path) -> None:
    """A process that is killed could not show it again."""
    stream = Terminal()
    with Report(tmp_path, since=0, tensorboard=False, stream=stream) as report:
        report.progress("step 1/4", done=1, total=4)
        text = stream.getvalue()
        assert text.rfind("\x1b[?25h") > text.rfind("\x1b[?25l")


def test_a_closed_terminal_ends_no_training(tmp_path: Path) -> None:
    stream = Terminal()
    with Report(tmp_path, since=0, tensorboard=False, stream=stream) as report:
        report.progress("step 1/4", done=1, total=4)
        stream.closed_by_user = True
        report.progress("step 2/4", done=2, total=4)
        report.say("nobody reads this")
        report.table(ROWS)
        report.record(2, loss=1.5)
    assert json.loads((tmp_path / "metrics.jsonl").read_text()) == {"step": 2, "loss": 1.5}


def test_standard_output_goes_where_it_went(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with Report(tmp_path, since=0, tensorboard=False, stream=Terminal()) as report:
        report.progress("step 1/4", done=1, total=4)
        print("a result")
    assert capsys.readouterr().out == "a result\n"


def test_a_file_has_no_console() -> None:
    assert terminal(None) is None
    assert terminal(io.StringIO()) is None
    assert terminal(Terminal()) is not None
