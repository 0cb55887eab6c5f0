"""What `import regard` gives is one sorted list, and `regard/__init__.py` is nothing but that list."""

import ast

import regard
from tests.structure.source import PACKAGE, read


def test_names_are_sorted_and_unique() -> None:
    assert list(regard.__all__) == sorted(set(regard.__all__))


def test_names_resolve() -> None:
    assert [name for name in regard.__all__ if not hasattr(regard, name)] == []


def test_nothing_else_is_public() -> None:
    """A name that is imported and not listed would be used all the same, and missed when it goes."""
    tree = read(PACKAGE / "__init__.py").tree
    imported = {
        alias.asname or alias.name for node in tree.body if isinstance(node, ast.ImportFrom) for alias in node.names
    }
    assert sorted(imported - set(regard.__all__)) == []


def test_the_file_holds_imports_and_the_list_only() -> None:
    statements = read(PACKAGE / "__init__.py").tree.body
    assert [ast.unparse(node) for index, node in enumerate(statements) if not allowed(index, node)] == []


def allowed(index: int, node: ast.stmt) -> bool:
    match node:
        case ast.Expr(value=ast.Constant(value=str())):
            return index == 0
        case ast.Assign(targets=[ast.Name(id="__all__")]):
            return True
        case _:
            return isinstance(node, ast.Import | ast.ImportFrom)
