"""Every code block of README.md and docs/ runs, and prints what the page says it prints.

The ```python blocks of a page run in order in one namespace, in an empty directory. A block of `>>>` sessions is a
doctest. In a ```console block, the lines that start with "$ " and call `regard` run too, in the same directory and
order; a command that fails is an error. A block that is directly followed by a ```text block must print exactly that.

Nothing else of a shell block runs: not the lines of ```sh blocks, which is where commands stand that take long or need
more than one process (`torchrun`), nor other programs in ```console blocks. But each `make` target that they mention
must exist.
"""

import contextlib
import doctest
import io
import itertools
import re
import shlex
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner

from regard.cli.main import main
from tests.structure.source import ROOT

PAGES = [page for page in [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))] if page.exists()]
SHELLS = {"console", "sh", "shell", "bash"}
PARTS = re.compile(r"\|\||&&|[;|&<>]+")  # what stands between commands, or between a command and its files
SECONDS = 120  # that a command in a shell may take


@dataclass(frozen=True)
class Block:
    """A fenced block: its language, its first line's number from 1, and whether it directly follows a block."""

    language: str
    code: str
    line: int
    follows: bool = False


def blocks(text: str) -> list[Block]:
    found: list[Block] = []
    fence, language, start, lines, gap = "", "", 0, [], True
    for number, line in enumerate(text.splitlines(), start=1):
        if fence:
            if line.strip().startswith(fence) and not line.strip().strip(fence[0]):
                found.append(Block(language, textwrap.dedent("\n".join(lines)) + "\n", start, not gap))
                fence, gap = "", False
            else:
                lines.append(line)
        elif opened := re.match(r"\s*(`{3,}|~{3,})\s*([\w-]*)", line):
            fence, language, start, lines = opened[1], opened[2], number + 1, []
        elif line.strip():
            gap = True
    if fence:
        raise ValueError(f"the block that starts on line {start} is not closed")
    return found


def run_page(text: str, name: str) -> None:
    namespace: dict[str, object] = {"__name__": "__main__"}
    for block, following in itertools.pairwise([*blocks(text), None]):
        if block.language == "console":
            printed = run_commands(block, name)
        elif block.language != "python":
            continue
        elif block.code.lstrip().startswith(">>>"):
            run_sessions(block, namespace, name)
            continue
        else:
            printed = run_code(block, namespace, name)
        if following is not None and following.language == "text" and following.follows:
            assert tidy(printed) == tidy(following.code), f"{name}:{block.line} prints something else"


def run_sessions(block: Block, namespace: dict[str, object], name: str) -> None:
    test = doctest.DocTestParser().get_doctest(block.code, namespace, name, name, block.line - 1)
    report = io.StringIO()
    failed = doctest.DocTestRunner(verbose=False).run(test, out=report.write, clear_globs=False).failed
    namespace.update(test.globs)  # which doctest copied
    assert not failed, report.getvalue()


def run_code(block: Block, namespace: dict[str, object], name: str) -> str:
    above = "\n" * (block.line - 1)  # so that a traceback gives the page's own line
    with contextlib.redirect_stdout(io.StringIO()) as printed:
        exec(compile(above + block.code, name, "exec", dont_inherit=True), namespace)  # noqa: S102
    return printed.getvalue()


def run_commands(block: Block, name: str) -> str:
    """What the block's calls of `regard` print."""
    return "".join(run_command(line, f"{name}:{number}") for number, line in commands(block))


def commands(block: Block) -> Iterator[tuple[int, str]]:
    """The lines that call `regard`, without their prompt, each with its number; a backslash joins it with the next."""
    lines = iter(enumerate(block.code.splitlines(), start=block.line))
    for number, line in lines:
        if not line.startswith("$ "):
            continue
        command = line[2:]
        while command.endswith("\\"):
            command = command[:-1] + next(lines)[1]
        if any(words[:1] == ["regard"] for words in parts(command)):
            yield number, command


def parts(line: str) -> list[list[str]]:
    """The words of each part of a shell's line, of which there are several if it has pipes or redirections."""
    lexer = shlex.shlex(line, posix=True, punctuation_chars=True)
    lexer.whitespace_split = True
    split = [(PARTS.fullmatch(word) is not None, word) for word in lexer]
    return [[word for _, word in words] for sign, words in itertools.groupby(split, lambda x: x[0]) if not sign]


def run_command(line: str, place: str) -> str:
    """What a line prints: in this process if it is one call of `regard`, else in a shell."""
    if len(found := parts(line)) > 1:
        return run_shell(line, place)
    threads = torch.get_num_threads()
    try:
        result = CliRunner().invoke(main, found[0][1:])
    finally:
        torch.set_num_threads(threads)  # which --threads changes for the whole process
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code == 0, f"{place}: {line}: {result.stderr}"
    return result.stdout


def run_shell(line: str, place: str) -> str:
    start = f'set -eo pipefail; regard() {{ {shlex.quote(sys.executable)} -m regard "$@"; }}\n'
    result = subprocess.run(["bash", "-c", start + line], capture_output=True, text=True, timeout=SECONDS, check=False)
    assert result.returncode == 0, f"{place}: {line}: {result.stderr}"
    return result.stdout


def tidy(text: str) -> list[str]:
    return [line.rstrip() for line in text.rstrip().splitlines()]


def make_targets(block: Block) -> Iterator[str]:
    """The targets in a shell block; where lines have a `$ ` prompt, the others are output."""
    lines = block.code.replace("\\\n", " ").splitlines()
    if any(line.startswith("$ ") for line in lines):
        lines = [line[2:] for line in lines if line.startswith("$ ")]
    for line in lines:
        for command in re.split(r"&&|\|\||[;|]", line):
            words = shlex.split(command, comments=True)
            while words and re.match(r"\w+=", words[0]):  # variables before the command
                words = words[1:]
            if words[:1] == ["make"]:
                yield from (word for word in words[1:] if "=" not in word and not word.startswith("-"))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_page_runs(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    run_page(page.read_text(encoding="utf-8"), str(page))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_page_names_targets_that_exist(page: Path) -> None:
    targets = re.findall(r"^([\w-]+):(?!=)", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)
    shells = [block for block in blocks(page.read_text(encoding="utf-8")) if block.language in SHELLS]
    assert [name for block in shells for name in make_targets(block) if name not in targets] == []


GOOD = """
```python
x = 2
print(x)
print("·")
```

```text
2
·
```

Then, in the same namespace:

```python
>>> x + 1
3
>>> y = 4
```

```python
print(y)
```

Not its output:

```text
5
```
"""


def test_a_page_that_runs() -> None:
    run_page(GOOD, "good.md")


@pytest.mark.parametrize("wrong", [("2\n·", "2\n."), (">>> x + 1\n3", ">>> x + 1\n4"), ("print(y)", "print(z)")])
def test_a_page_that_does_not_run(wrong: tuple[str, str]) -> None:
    with pytest.raises((AssertionError, NameError)):
        run_page(GOOD.replace(*wrong), "bad.md")


def test_a_page_with_an_open_block() -> None:
    with pytest.raises(ValueError, match="starts on line 2"):
        blocks("```python\nx = 1\n")


def test_targets_are_found_in_shell_blocks() -> None:
    shell = "$ git clone x && make -j2 test    # make coffee\nmake output\n$ PYTHON=python3.12 make check V=1"
    assert list(make_targets(Block("console", shell, 1))) == ["test", "check"]
    assert list(make_targets(Block("sh", "make demo \\\n  test\n", 1))) == ["demo", "test"]


COMMANDS = """
```python
from pathlib import Path

Path("texts.txt").write_text("one\\ntwo\\n")
```

```console
$ regard --version
regard, as of now
$ make demo
$ regard info \\
    --json > info.json && cat texts.txt
```

```text
regard 0
one
two
```

```python
print(Path("info.json").read_text()[0])
```

```text
{
```

```sh
regard no-such-verb
```
"""


def test_a_page_with_commands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    run_page(COMMANDS.replace("regard 0", f"regard {version('regard')}"), "good.md")


@pytest.mark.parametrize(
    ("command", "text"),
    [("regard --verson", ""), ("regard info nowhere | cat", ""), ("regard --version", "regard 0")],
)
def test_a_page_with_a_command_that_fails(command: str, text: str) -> None:
    with pytest.raises(AssertionError):
        run_page(f"```console\n$ {command}\n```\n" + (f"```text\n{text}\n```\n" if text else ""), "bad.md")


def test_what_a_console_block_runs() -> None:
    console = """\
$ regard see "It's <b> & c | d" --png a.png
regard see nothing
$ pip install regard
$ cat a | regard translate > b    # as a filter
$ torchrun -m regard train a.tsv
$ regard train a.tsv \\
    --steps 3
"""
    found = list(commands(Block("console", console, 10)))
    assert [number for number, _ in found] == [10, 13, 15]
    assert [parts(line) for _, line in found] == [
        [["regard", "see", "It's <b> & c | d", "--png", "a.png"]],
        [["cat", "a"], ["regard", "translate"], ["b"]],
        [["regard", "train", "a.tsv", "--steps", "3"]],
    ]
