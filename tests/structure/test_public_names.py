"""What `import regard` gives is one sorted list, whose names are imported when they are first used."""

import ast
import subprocess
import sys
from importlib.metadata import version

import pytest

import regard
from tests.structure.source import PACKAGE, read

BODY = read(PACKAGE / "__init__.py").tree.body


def imports() -> dict[str, str]:
    """The module of each name that a type checker sees."""
    [block] = [node for node in BODY if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"]
    statements = [node for node in block.body if isinstance(node, ast.ImportFrom)]
    return {alias.asname or alias.name: node.module or "" for node in statements for alias in node.names}


def test_names_are_sorted_and_unique() -> None:
    assert list(regard.__all__) == sorted(set(regard.__all__))


def test_names_resolve() -> None:
    assert [name for name in regard.__all__ if not hasattr(regard, name)] == []


def test_type_checkers_see_the_same_names() -> None:
    assert sorted(imports()) == sorted(regard.__all__)


def test_each_name_is_imported_from_where_type_checkers_see_it() -> None:
    """`_NAMES` has a line for each import of the block above it, in the same order."""
    expected: dict[str, tuple[str, ...]] = {}
    for name, module in imports().items():
        home = module.removeprefix("regard.")
        expected[home] = (*expected.get(home, ()), name)
    assert expected == regard._NAMES


def test_the_file_holds_names_and_how_they_are_found_only() -> None:
    assert [ast.unparse(node) for index, node in enumerate(BODY) if not allowed(index, node)] == []


def allowed(index: int, node: ast.stmt) -> bool:
    match node:
        case ast.Expr(value=ast.Constant(value=str())):
            return index == 0
        case ast.ImportFrom(module="typing", names=[ast.alias(name="TYPE_CHECKING")]):
            return True
        case ast.Assign(targets=[ast.Name(id="__all__" | "_NAMES" | "_HOMES" | "_RENAMED")]):
            return True
        case ast.If(test=ast.Name(id="TYPE_CHECKING")):
            return all(isinstance(part, ast.ImportFrom | ast.AnnAssign) for part in node.body)
        case ast.If(test=ast.UnaryOp(op=ast.Not(), operand=ast.Name(id="TYPE_CHECKING"))):
            return [part.name for part in node.body if isinstance(part, ast.FunctionDef)] == ["__getattr__"]
        case _:
            return isinstance(node, ast.FunctionDef) and node.name == "__dir__"


def imported_by(code: str) -> set[str]:
    """The packages that a fresh interpreter has imported after some code."""
    code += "\nimport sys; print(*{name.partition('.')[0] for name in sys.modules})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return set(done.stdout.split())


def test_the_package_alone_imports_neither_torch_nor_numpy() -> None:
    assert {"torch", "numpy"} & imported_by("import regard; dir(regard); regard.errors; regard.__version__") == set()
    assert {"torch", "numpy"} <= imported_by("import regard; regard.attend")


def test_everything_at_once() -> None:
    names: dict[str, object] = {}
    exec("from regard import *", names)  # noqa: S102 - a star is allowed in a module only
    assert names.keys() - {"__builtins__"} == set(regard.__all__)
    assert set(regard.__all__) <= set(dir(regard))


def test_version_and_names_that_there_are_not() -> None:
    assert regard.__version__ == version("regard")
    with pytest.raises(AttributeError, match="module 'regard' has no attribute 'atend'") as caught:
        _ = regard.atend
    assert (caught.value.name, caught.value.obj) == ("atend", regard)  # of which Python makes "Did you mean: 'attend'?"


def test_an_old_name_warns_and_leads_to_the_new_one() -> None:
    with pytest.warns(DeprecationWarning, match=r"rg\.Seen is now rg\.SummaryResult"):
        assert regard.Seen is regard.SummaryResult
