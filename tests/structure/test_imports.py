"""Who may import whom, read from the source: imports inside functions and for types count too."""

import ast
import sys
from collections.abc import Iterator

import pytest

from tests.structure.source import Module, made_up, modules

# What a part may import besides itself. A new part is a new line here, which is a decision and not an accident.
OPERATOR = {"errors", "attention"}
INPUTS = {"data", "text", "audio", "vision"}  # from files and raw input to model input
UP_TO_MODELS = OPERATOR | {"kernels", "layers", "models"}
UP_TO_CHECKPOINTS = UP_TO_MODELS | {"decode", "checkpoints"} | INPUTS
UP_TO_TASKS = UP_TO_CHECKPOINTS | {"lens", "tasks"}
MAY_IMPORT: dict[str, set[str]] = {
    "errors": set(),
    "kernels": {"errors"},
    "attention": {"errors", "kernels"},
    "layers": OPERATOR | {"kernels"},
    "models": OPERATOR | {"layers"},
    "decode": UP_TO_MODELS - {"kernels"},
    **dict.fromkeys(INPUTS, {"errors"} | INPUTS),
    "checkpoints": UP_TO_CHECKPOINTS,
    "lens": UP_TO_CHECKPOINTS | {"integrations"},
    "tasks": UP_TO_CHECKPOINTS | {"lens", "integrations"},
    "train": UP_TO_TASKS,
    "compress": UP_TO_TASKS | {"train", "integrations"},
    "scale": UP_TO_TASKS,
    "serve": UP_TO_TASKS,
    "cli": UP_TO_TASKS | {"train", "compress", "scale", "serve"},
    "__main__": {"cli"},
    "integrations": OPERATOR | {"layers"},
}
# Each stands alone: none may borrow from another.
BACKENDS = {"reference", "chunked", "native", "sdpa", "flex", "triton"}
# Everything else is optional, and imported inside the function that needs it.
REQUIRED = {"torch", "numpy", "click", "tokenizers", "safetensors"}


def imports(module: Module) -> Iterator[tuple[ast.Import | ast.ImportFrom, str]]:
    """Every import statement with the full dotted name of each thing imported; relative names are made absolute."""
    package = module.name.split(".") if module.is_package else module.name.split(".")[:-1]
    for node in ast.walk(module.tree):
        if isinstance(node, ast.Import):
            yield from ((node, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            base = [*base, *(node.module or "").split(".")] if node.module else base
            yield from ((node, ".".join([*base, alias.name])) for alias in node.names)


def part(name: str) -> str:
    """`attention` of `regard.attention.score`; empty for `regard` itself."""
    return ".".join(name.split(".")[1:2])


def backend(name: str) -> str | None:
    head, _, rest = name.partition("regard.attention.backends.")
    return first if not head and (first := rest.split(".")[0]) in BACKENDS else None


def wrong_directions(module: Module) -> list[str]:
    here = part(module.name)
    if here not in MAY_IMPORT:
        return [f"{module.path.name}: {here!r} has no line in MAY_IMPORT"]
    found = []
    for node, name in imports(module):
        if name.split(".")[0] != "regard":
            continue
        there = part(name)
        if there != here and there not in MAY_IMPORT[here]:
            found.append(f"{module.where(node)}: {here} may not import {name}")
        if backend(module.name) and backend(name) and backend(module.name) != backend(name):
            found.append(f"{module.where(node)}: a backend may not import another, {name}")
    return found


def eager_third_party(module: Module) -> list[str]:
    """Optional packages imported when the module is, rather than when they are needed."""
    later = {id(node) for node in deferred(module.tree)}
    allowed = REQUIRED | {"regard"} | sys.stdlib_module_names
    return [
        f"{module.where(node)}: {name} is optional; import it inside the function that needs it"
        for node, name in imports(module)
        if id(node) not in later and name.split(".")[0] not in allowed
    ]


def deferred(tree: ast.Module) -> Iterator[ast.AST]:
    """What does not run at import: bodies of functions, and blocks for the type checker."""
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield from ast.walk(node)
        elif isinstance(node, ast.If) and ast.unparse(node.test) in ("TYPE_CHECKING", "typing.TYPE_CHECKING"):
            for statement in node.body:
                yield from ast.walk(statement)


def test_imports_follow_the_layers() -> None:
    checked = [module for module in modules() if module.name != "regard"]  # which gathers the public names
    assert checked
    assert [problem for module in checked for problem in wrong_directions(module)] == []


def test_optional_packages_are_imported_inside_functions() -> None:
    assert [problem for module in modules() for problem in eager_third_party(module)] == []


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("regard.errors", "import regard.attention"),
        ("regard.attention.score", "from ..layers import MultiHeadAttention"),
        ("regard.attention.score", "from .. import layers"),
        ("regard.attention.score", "import regard"),
        ("regard.attention.score", "def later():\n    from regard.tasks import classify"),
        ("regard.data.records", "from regard.attention import attend"),
        ("regard.train.loop", "from regard.serve import page"),
        ("regard.lens.record", "from regard.tasks import classify"),
        ("regard.cli.train", "from regard.integrations import transformers"),
        ("regard.attention.backends.sdpa", "from .reference import run"),
        ("regard.attention.backends.sdpa", "from . import chunked"),
        ("regard.attention.backends.sdpa", "from regard.attention.backends.chunked import run"),
        ("regard.nowhere.file", ""),
    ],
)
def test_the_checker_finds_wrong_directions(name: str, text: str) -> None:
    assert wrong_directions(made_up(name, text))


def test_the_checker_passes_right_directions() -> None:
    assert wrong_directions(made_up("regard.layers.heads", "from ..attention import attend\nimport torch")) == []
    assert wrong_directions(made_up("regard.attention", "from .score import Dot", is_package=True)) == []
    assert wrong_directions(made_up("regard.attention.backends.sdpa", "from ..score import Dot")) == []


def test_the_checker_finds_eager_imports() -> None:
    assert eager_third_party(made_up("regard.layers.heads", "import entmax"))
    assert eager_third_party(made_up("regard.layers.heads", "try:\n    import triton.language\nfinally:\n    pass"))
    later = "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import triton\ndef run():\n    import triton"
    assert eager_third_party(made_up("regard.layers.heads", later)) == []
