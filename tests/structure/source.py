"""The package's source as syntax trees, for the tests that read it."""

import ast
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = ROOT / "src" / "regard"


@dataclass(frozen=True)
class Module:
    """One source file: `name` is dotted, `is_package` says that relative imports start at the name itself."""

    name: str
    path: Path
    tree: ast.Module
    is_package: bool

    def where(self, node: ast.stmt | ast.expr) -> str:
        return f"{self.path.relative_to(ROOT)}:{node.lineno}"


def modules() -> list[Module]:
    return [read(path) for path in sorted(PACKAGE.rglob("*.py"))]


def read(path: Path) -> Module:
    parts = list(path.relative_to(PACKAGE.parent).with_suffix("").parts)
    if is_package := parts[-1] == "__init__":
        parts.pop()
    return Module(".".join(parts), path, ast.parse(path.read_text(encoding="utf-8"), str(path)), is_package)


def made_up(name: str, text: str, *, is_package: bool = False) -> Module:
    """A module that is not on disk, to show that a checker finds what it looks for."""
    path = PACKAGE.parent.joinpath(*name.split("."))
    path = path / "__init__.py" if is_package else path.with_suffix(".py")
    return Module(name, path, ast.parse(text), is_package)
