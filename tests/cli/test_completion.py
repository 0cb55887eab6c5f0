"""The shell's completion: verbs, options and values, without torch, and whatever the line says so far."""

import os
import subprocess
import sys
from pathlib import Path

import click
import pytest

from regard.cli import main as cli
from tests.cli.run import regard

NAMES = {"FILE": "file", "FOLDER": "dir", "SOURCES TARGETS": "file"}  # what a value is, by its name in the help


def completions(line: str, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What bash completes for the last word of a line."""
    for name, value in variables(line).items():
        monkeypatch.setenv(name, value)
    result = regard()
    assert result.exit_code == 0
    assert result.stderr == ""
    return result.stdout.split()


def variables(line: str) -> dict[str, str]:
    words = line.split(" ")
    whole = " ".join(words) if words[-1] else line.rstrip()
    return {"COMP_WORDS": whole, "COMP_CWORD": str(len(words) - 1), "_REGARD_COMPLETE": "bash_complete"}


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("regard tr", ["plain,train", "plain,translate", "plain,transcribe"]),
        ("regard ", [f"plain,{verb}" for verb in cli.VERBS]),
        ("regard translate --mo", ["plain,--model"]),
        ("regard translate --model ", ["dir,"]),
        ("regard translate --model runs/e", ["dir,runs/e"]),
        ("regard translate --file no", ["file,no"]),
        ("regard translate a", []),
        ("regard evaluate pa", ["file,pa"]),
        ("regard evaluate --tokenize ja", ["plain,ja-mecab"]),
        ("regard info ", ["dir,"]),
        ("regard see x --kind=en", ["plain,encoder"]),
        ("regard embed --device c", ["plain,cpu", "plain,cuda"]),
        ("regard train a.tsv --model r", ["plain,rnn"]),
        ("regard train --from ru", ["dir,ru"]),
        # lines that would be errors
        ("regard train --steps 3 --steps 4 --thr", ["plain,--threads"]),
        ("regard train --config nowhere.toml --step", ["plain,--steps"]),
        ("regard train --attention.score dot --step", ["plain,--steps"]),
        ("regard train --atention.score --step", ["plain,--steps"]),
        ("regard no-such-verb --mo", []),
    ],
)
def test_completions(line: str, expected: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    assert completions(line, monkeypatch) == expected


@pytest.mark.parametrize("verb", list(cli.VERBS))
def test_every_file_and_folder_is_completed(verb: str) -> None:
    command = cli.main.get_command(click.Context(cli.main), verb)
    assert command is not None
    context = click.Context(command)
    for param in command.params:
        kind = NAMES.get(param.make_metavar(context).strip("[]."))
        if kind is not None:
            assert [item.type for item in param.shell_complete(context, "a")] == [kind], param.name


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_each_shell_has_a_script(shell: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("_REGARD_COMPLETE", f"{shell}_source")
    assert f"_REGARD_COMPLETE={shell}_complete" in regard().stdout


@pytest.mark.parametrize(
    "line", ["regard tr", "regard train --attention.score dot --st", "regard evaluate --tokenize "]
)
def test_completion_imports_no_torch(line: str) -> None:
    code = """
import sys
from regard.cli.main import main
try:
    main([])
except SystemExit:
    pass
heavy = {"torch", "tokenizers", "safetensors", "sacrebleu", "matplotlib", "numpy"} & set(sys.modules)
sys.exit(f"imported: {heavy}" if heavy else 0)
"""
    environment = {**os.environ, **variables(line)}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("plain,")


BASH = r"""
compopt() { local IFS=' '; echo "compopt $*"; }
eval "$(_REGARD_COMPLETE=bash_source regard)"
COMP_WORDS=(regard evaluate --tok); COMP_CWORD=2; _regard_completion regard; echo "${COMPREPLY[@]}"
COMP_WORDS=(regard translate --model ru); COMP_CWORD=3; _regard_completion regard
"""


@pytest.mark.skipif(not Path("/bin/bash").exists(), reason="needs bash")
def test_bash_completes(tmp_path: Path) -> None:
    command = tmp_path / "regard"
    command.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m regard "$@"\n')
    command.chmod(0o755)
    environment = {**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}"}
    done = subprocess.run(["/bin/bash", "--norc", "-c", BASH], capture_output=True, text=True, env=environment)
    assert done.stdout.splitlines() == ["--tokenize", "compopt -o dirnames"], done.stderr
