"""Every code block of README.md and docs/ runs, and prints what the page says it prints.

The ```python blocks of a page run in order in one namespace, in an empty directory. A block of `>>>` sessions is a
doctest. A plain block that is directly followed by a ```text block must print exactly that. Shell blocks do not
run, but each `make` target that they mention must exist.
"""

import contextlib
import doctest
import io
import itertools
import re
import shlex
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.structure.source import ROOT

PAGES = [page for page in [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))] if page.exists()]
SHELLS = {"console", "sh", "shell", "bash"}


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
        if block.language != "python":
            continue
        if block.code.lstrip().startswith(">>>"):
            run_sessions(block, namespace, name)
            continue
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


def tidy(text: str) -> list[str]:
    return [line.rstrip() for line in text.rstrip().splitlines()]


def make_targets(block: Block) -> Iterator[str]:
    """The targets in a shell block; where lines have a `$ ` prompt, the others are output."""
    lines = block.code.splitlines()
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
    assert list(make_targets(Block("sh", "make demo\n", 1))) == ["demo"]
