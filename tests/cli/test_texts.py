"""The texts of a verb: arguments, a file's lines, or standard input; and a file that is taken for a text."""

import gzip
from pathlib import Path

import pytest

from tests.checkpoints.made import SENTENCES
from tests.cli.run import error, model_folder, regard

MODEL = ("--model", str(model_folder()), "--greedy")
VERBS = ("translate", "embed", "fill", "complete")


def output(*words: str, stdin: str | bytes | None = None) -> str:
    result = regard("translate", *MODEL, *words, stdin=stdin)
    assert result.exit_code == 0, result.stderr
    return result.stdout


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "notes.txt").write_text("\n".join(SENTENCES), encoding="utf-8")
    return tmp_path


def test_a_file_is_read_line_by_line(here: Path) -> None:
    expected = output(*SENTENCES)
    assert output("--file", "notes.txt") == expected
    (here / "packed").write_bytes(gzip.compress(b"\xef\xbb\xbf" + "\r\n".join(SENTENCES).encode()))
    assert output("--file", "packed") == expected
    assert output("--file", "-", stdin="\n".join(SENTENCES)) == expected
    assert output("-", stdin="\n".join(SENTENCES)) == expected


@pytest.mark.parametrize("verb", VERBS)
def test_the_name_of_a_file_is_not_taken_for_a_text(verb: str, here: Path) -> None:
    (here / "my notes.txt").touch()
    assert error(verb, "a text", "my notes.txt") == (
        f"my notes.txt is a file; to read the file: regard {verb} --file 'my notes.txt'; to read its name as the text: "
        f"echo 'my notes.txt' | regard {verb}. See regard {verb} --help"
    )
    assert error(verb, "a text", "--file", "notes.txt").startswith("a text and --file exclude each other; give one")
    assert f"there is no file 'note.txt'; did you mean '{'notes.txt'}'?" in error(verb, "--file", "note.txt", code=1)
    for option in ("--file", "[TEXT]..."):
        assert option in regard(verb, "--help").stdout


def test_see_reads_no_file(here: Path) -> None:
    message = error("see", "notes.txt")
    assert message.startswith("notes.txt is a file; to read the file: regard see --file notes.txt; to read its name")
    assert regard("see", " notes.txt", *MODEL).exit_code == 0


def test_texts_that_are_no_names_of_files(here: Path) -> None:
    """A folder, a text that is too long for a name, and one that no name can be."""
    (here / "library").mkdir()
    assert output("library")
    assert output("library " * 1000)
    assert output("a\0b")


def test_hostile_files(here: Path) -> None:
    for name, content in (
        ("empty", b""),
        ("utf16", b"\xff\xfea\0"),
        ("bytes", b"ok\nok\xc3\n"),
        ("long", b"x" * 2**21),
    ):
        (here / name).write_bytes(content)
    translate = ("translate", *MODEL, "--file")
    assert "empty is empty; expected a text a line" in error(*translate, "empty", code=1)
    assert "utf16 is in UTF-16; expected UTF-8" in error(*translate, "utf16", code=1)
    assert "bytes:2: not UTF-8 at byte 3" in error(*translate, "bytes", code=1)
    assert "long:1: the line is longer than 1,048,576 bytes" in error(*translate, "long", code=1)
    assert " is a directory; expected a file" in error(*translate, str(here), code=1)
