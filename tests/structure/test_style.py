"""Rules of the source that no linter here has in this form."""

import ast
from collections.abc import Iterator

import pytest

from tests.structure.source import Module, made_up, modules

BLIND = {"Exception", "BaseException", "builtins.Exception", "builtins.BaseException"}
SILENT = ("regard.attention", "regard.layers")


def asserts(module: Module) -> Iterator[str]:
    """`python -O` removes them, and a caller's mistake deserves an error that names the remedy."""
    for node in ast.walk(module.tree):
        if isinstance(node, ast.Assert):
            yield f"{module.where(node)}: raise an error from regard.errors instead of assert"


def blind_excepts(module: Module) -> Iterator[str]:
    for node in ast.walk(module.tree):
        if isinstance(node, ast.ExceptHandler):
            caught = node.type.elts if isinstance(node.type, ast.Tuple) else [node.type]
            if any(kind is None or ast.unparse(kind) in BLIND for kind in caught):
                yield f"{module.path.name}:{node.lineno}: name the exceptions that are meant"


def prints(module: Module) -> Iterator[str]:
    if not module.name.startswith(SILENT):
        return
    for node in ast.walk(module.tree):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "print":
            yield f"{module.where(node)}: a library does not print"


@pytest.mark.parametrize("rule", [asserts, blind_excepts, prints])
def test_rule(rule) -> None:
    assert [problem for module in modules() for problem in rule(module)] == []


@pytest.mark.parametrize(
    ("rule", "text"),
    [
        (asserts, "def attend(query):\n    assert query.dim() == 4"),
        (blind_excepts, "try:\n    pass\nexcept:\n    pass"),
        (blind_excepts, "try:\n    pass\nexcept Exception as error:\n    raise"),
        (blind_excepts, "try:\n    pass\nexcept (ValueError, BaseException):\n    pass"),
        (prints, "def draw():\n    print('x')"),
    ],
)
def test_the_rule_finds_what_it_looks_for(rule, text: str) -> None:
    assert list(rule(made_up("regard.attention.patterns.pattern", text)))
