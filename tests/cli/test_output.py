"""What verbs print on a terminal, through rich; elsewhere their output is plain text."""

import io
import itertools
import re
from pathlib import Path

import pytest
from rich.console import Console

from regard.cli import output
from tests.checkpoints.made import SENTENCES, translator
from tests.cli import kinds
from tests.cli.run import model_folder, regard

ESCAPE = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")


@pytest.fixture
def on_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    """Take every stream for a terminal of 100 columns."""

    def console(stream: io.TextIOBase) -> Console:
        settings = {"markup": False, "emoji": False, "highlight": False}
        return Console(file=stream, force_terminal=True, width=100, **settings)  # type: ignore[arg-type]

    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.setattr(output, "terminal", console)


def plain(text: str) -> str:
    """Text without colors."""
    return ESCAPE.sub("", text)


def lines(text: str) -> list[list[str]]:
    """Words of each line that has any."""
    return [line.split() for line in plain(text).splitlines() if line.strip()]


def test_an_error_is_red(on_a_terminal: None) -> None:
    result = regard("info", "no/[bold]folder")
    assert result.exit_code == 1
    assert result.stderr.startswith("\x1b[1;31mError: \x1b[0mno/[bold]folder does not exist")
    assert plain(result.stderr).count("\n") == 1  # the terminal itself wraps it


def test_an_error_is_plain_in_a_file() -> None:
    assert regard("info", "no/folder").stderr.startswith("regard: error: no/folder does not exist")


def test_info_is_a_tree_of_names_and_values(on_a_terminal: None, tmp_path: Path) -> None:
    translator().save(tmp_path)
    text = regard("info", str(tmp_path)).stdout
    count = sum(x.numel() for x in translator().module.parameters())
    assert "\x1b[1mweights" in text  # a heading
    assert ["parameters", f"{count:,}"] in lines(text)
    assert regard("info", str(tmp_path), "--json").stdout.startswith("{\n")


def test_evaluate_is_a_table(on_a_terminal: None, tmp_path: Path) -> None:
    file = tmp_path / "test.tsv"
    file.write_text("".join(f"{source}\t{target}\n" for source, target in itertools.pairwise(SENTENCES)))
    words = ("evaluate", str(file), "--model", str(model_folder()), "--greedy")
    text = regard(*words).stdout
    assert ["words", "of", "source", "pairs", "BLEU", "chrF"] in lines(text)
    assert any(line[:2] == ["all", str(len(SENTENCES) - 1)] for line in lines(text))
    assert "━" in text or "─" in text
    assert regard(*words, "--json").stdout.startswith("{\n")


def test_classify_is_a_table(on_a_terminal: None, tmp_path: Path) -> None:
    kinds.classifier(tmp_path)
    words = ("classify", "the mat .", "a [bold] mat", "--top", "2", "--model", str(tmp_path))
    head, _, *rows = lines(regard(*words).stdout)
    assert head == ["text", "label", "probability"]
    assert [row[:3] for row in rows[::2]] == [["the", "mat", "."], ["a", "[bold]", "mat"]]
    assert len(rows) == 4
    assert all(0 <= float(row[-1]) <= 1 for row in rows)
    assert regard(*words, "--json").stdout.count("\n") == 2


def test_piped_classes_are_tab_separated(tmp_path: Path) -> None:
    kinds.classifier(tmp_path)
    text = regard("classify", "the mat .", "--top", "2", "--model", str(tmp_path)).stdout
    assert re.fullmatch(r"(a|the) mat \.\t0\.\d{4}\t(a|the) mat \.\t0\.\d{4}\n", text)


def test_translate_counts_lines_on_standard_error_only(on_a_terminal: None) -> None:
    words = ("translate", "--model", str(model_folder()), "--greedy", "--batch-size", "1")
    result = regard(*words, stdin="\n".join(SENTENCES[:2]))
    assert "\x1b" not in result.stdout
    assert result.stdout.count("\n") == 2
    assert re.search(r"2 lines, [\d.,]+ lines/s\n$", plain(result.stderr))


def test_nothing_is_counted_in_a_file() -> None:
    with output.counting("lines", shown=True) as add:
        add(3)
