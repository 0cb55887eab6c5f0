"""Every `raise` in the package is reached by a case of tests/errors/cases.py, which checks its message.

test_errors.py checks what the cases say; here their tracebacks tell which raise statements they reached.
"""

import ast
from collections.abc import Callable
from pathlib import Path
from types import TracebackType

from tests.errors.cases import CASES
from tests.structure.source import PACKAGE, ROOT, made_up, modules

Place = tuple[Path, int, int]  # file, first and last line of the statement


def raise_statements(tree: ast.Module) -> list[ast.Raise]:
    """All but bare re-raises, and methods that exist to be overridden."""
    abstract = {
        id(node)
        for function in ast.walk(tree)
        if isinstance(function, ast.FunctionDef)
        if any(ast.unparse(decorator).endswith("abstractmethod") for decorator in function.decorator_list)
        for node in ast.walk(function)
        if isinstance(node, ast.Raise) and "NotImplementedError" in ast.unparse(node)
    }
    return [
        node
        for node in ast.walk(tree)
        if isinstance(node, ast.Raise) and node.exc is not None and id(node) not in abstract
    ]


def all_raises() -> set[Place]:
    return {
        (module.path, node.lineno, node.end_lineno or node.lineno)
        for module in modules()
        for node in raise_statements(module.tree)
    }


def reached(traceback: TracebackType | None, places: set[Place]) -> Place | None:
    """The innermost raise of the package that the traceback passes through."""
    found = None
    while traceback is not None:
        path = Path(traceback.tb_frame.f_code.co_filename)
        if path.is_relative_to(PACKAGE):
            line = traceback.tb_lineno
            found = next((place for place in places if place[0] == path and place[1] <= line <= place[2]), found)
        traceback = traceback.tb_next
    return found


def run(call: Callable[[], object], error_class: type[Exception]) -> TracebackType | None:
    try:
        call()
    except error_class as error:
        return error.__traceback__
    return None  # test_errors.py says so


def test_every_raise_has_a_case() -> None:
    places = all_raises()
    covered = {reached(run(call, error_class), places) for _, call, error_class, _ in CASES}
    missing = [f"{path.relative_to(ROOT)}:{line}" for path, line, _ in sorted(places - covered)]
    assert not missing, "\n".join(["raise statements without a case in tests/errors/cases.py:", *missing])


def test_raise_statements_are_found() -> None:
    text = """
class Score:
    @abc.abstractmethod
    def name(self):
        raise NotImplementedError

    def scale(self):
        try:
            raise ValueError(
                "one"
            )
        except ValueError:
            raise
"""
    found = raise_statements(made_up("regard.attention.score", text).tree)
    assert [(node.lineno, node.end_lineno) for node in found] == [(9, 11)]


def test_a_traceback_names_the_innermost_raise() -> None:
    text = "def inner():\n    raise ValueError(\n        'one')\n\ndef outer():\n    raise TypeError(inner())\n"
    path = PACKAGE / "made_up.py"
    names: dict[str, Callable[[], object]] = {}
    exec(compile(text, str(path), "exec"), names)  # noqa: S102 as if it were a file of the package
    places = {(path, 2, 3), (path, 6, 6)}
    assert reached(run(names["outer"], ValueError), places) == (path, 2, 3)
    assert reached(run(lambda: int("x"), ValueError), places) is None
