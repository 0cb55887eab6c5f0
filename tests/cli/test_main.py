"""How the command greets, and how it ends when something is wrong."""

import errno
import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import click
import pytest

from regard.cli import main as cli
from regard.cli.command import Command
from tests.checkpoints.made import SENTENCES
from tests.cli.run import error, model_folder, regard, without_cut

ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1"}


def test_help_without_a_verb() -> None:
    result = regard()
    assert result.exit_code == 0
    assert result.output == regard("--help").output == regard("-h").output
    assert all(verb in result.output for verb in cli.VERBS)
    assert len(result.output.splitlines()) < 40


@pytest.mark.parametrize("verb", list(cli.VERBS))
def test_every_verb_helps_with_an_example(verb: str) -> None:
    result = regard(verb, "--help")
    assert result.exit_code == 0
    assert f"  regard {verb}" in result.output.partition("Example")[2]


def test_version() -> None:
    assert regard("--version").output.startswith("regard 0.")


def test_help_imports_no_torch() -> None:
    """All verbs' modules and all help come without torch, which takes seconds to import."""
    code = """
    import sys
    from regard.cli.main import VERBS, main
    for words in ([], ["--version"], *([verb, "--help"] for verb in VERBS)):
        try:
            main(words)
        except SystemExit:
            pass
    heavy = {"torch", "tokenizers", "safetensors", "sacrebleu", "matplotlib", "numpy"} & set(sys.modules)
    sys.exit(f"imported: {heavy}" if heavy else 0)
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True, env=ENVIRONMENT
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("Usage: regard") == 1 + len(cli.VERBS)


def test_unknown_verbs_and_options() -> None:
    assert "unknown verb 'translatte'; did you mean 'translate'?" in error("translatte")
    assert "unknown verb 'xyz'; known: demo, train, translate" in error("xyz")
    assert (
        error("translate", "--beem", "4") == "unknown option --beem; did you mean --beam? See regard translate --help"
    )
    assert error("see", "-x") == "unknown option -x. See regard see --help"
    assert "did you mean --version?" in error("--versoin")


def test_options_twice() -> None:
    assert error("translate", "--beam", "4", "--beam", "4", "x").startswith("--beam is given 2 times")
    assert error("translate", "--greedy", "--greedy", "--greedy").startswith("--greedy is given 3 times")
    assert error("see", "--beam=4", "x", "--beam", "5").startswith("--beam is given 2 times")


def test_missing_models_and_files(tmp_path: Path) -> None:
    assert "does not exist; expected the folder of a trained model" in error("translate", "x", "--model", "no", code=1)
    assert "config.json is missing; the folder has nothing" in error("info", str(tmp_path), code=1)
    assert "no.tsv" in error("evaluate", "no.tsv", "--model", str(model_folder()), code=1)
    target = str(tmp_path / "no" / "a.html")
    words = ("see", "The library reads", "--greedy", "--model", str(model_folder()), "--html", target)
    result = regard(*words)
    assert result.exit_code == 1
    assert result.stderr == f"regard: error: {target}: No such file or directory\n"


@pytest.mark.parametrize(
    ("problem", "code", "message"),
    [
        (
            OSError(errno.ENOSPC, "No space left on device", "a/b"),
            1,
            "error: a/b: no space left on the disk; free some space",
        ),
        (PermissionError(errno.EACCES, "Permission denied", "a/b"), 1, "error: a/b: Permission denied"),
        (MemoryError(), 1, "error: out of memory; try a smaller --batch-size"),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory: 8 bytes"), 1, "error: out of memory; try"),
        (KeyboardInterrupt(), 130, "stopped"),
    ],
)
def test_how_it_ends(problem: BaseException, code: int, message: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def run() -> None:
        """Fail."""
        raise problem

    failing = Command("info", run, params=[], examples=["regard info"])
    monkeypatch.setattr(cli.Verbs, "get_command", lambda self, ctx, name: failing)
    result = regard("info")
    assert result.exit_code == code
    assert result.stderr.strip().startswith(f"regard: {message}")
    assert result.stdout == ""


def test_a_mistake_of_regards_own_is_not_hidden(monkeypatch: pytest.MonkeyPatch) -> None:
    def run() -> None:
        """Fail."""
        raise RuntimeError("sizes differ")

    failing = Command("info", run, params=[], examples=["regard info"])
    monkeypatch.setattr(cli.Verbs, "get_command", lambda self, ctx, name: failing)
    with pytest.raises(RuntimeError, match="sizes differ"):
        cli.main(["info"])


def start(*words: str) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "regard", "translate", "--model", str(model_folder()), "--greedy", *words]
    pipe = subprocess.PIPE
    return subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe, env=ENVIRONMENT)


def wait_for_a_line(process: subprocess.Popen[bytes]) -> None:
    """Until the first lines are translated: then it runs, and waits for more."""
    process.stdin.write(f"{SENTENCES[0]}\n".encode() * 8)
    process.stdin.flush()
    assert process.stdout.readline()


def test_ctrl_c() -> None:
    with start("--batch-size", "1") as process:
        wait_for_a_line(process)
        time.sleep(0.1)
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=30)
    assert process.returncode == 130
    assert without_cut(said.decode()).strip() == "regard: stopped"


def test_a_reader_that_goes_away() -> None:
    """As in `regard translate | head -1`."""
    with start("--batch-size", "1") as process:
        wait_for_a_line(process)
        process.stdout.close()
        process.stdin.write(f"{SENTENCES[0]}\n".encode() * 80)
        process.stdin.close()
        said = process.stderr.read()
    assert process.returncode == 1
    assert without_cut(said.decode()) == ""


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="a disk that is always full is Linux's")
def test_a_full_disk() -> None:
    with Path("/dev/full").open("wb") as full:
        words = [sys.executable, "-m", "regard", "info", str(model_folder())]
        done = subprocess.run(words, stdout=full, stderr=subprocess.PIPE, env=ENVIRONMENT)
    assert done.returncode == 1
    assert (
        done.stderr.decode()
        == "regard: error: no space left on the disk; free some space and run the same command again\n"
    )


def test_names_that_are_no_commands() -> None:
    assert isinstance(cli.main, click.Group)
    assert cli.main.get_command(click.Context(cli.main), "demonstrate") is None
