"""Every public name explains itself: each parameter, what returns, what raises, and the paper that defines it.

Args:, Returns: and Raises: are sections as in the rest of the package: a line of their own, entries indented below.
An entry's head is what stands before its first colon; "query, key: ..." documents two, "left (int): ..." one.
"""

import ast
import dataclasses
import enum
import inspect
import re
import textwrap
from collections.abc import Callable

import pytest

import regard

# Values that a paper defines: authors, year, section or equation.
SOURCED = {
    "ALiBi", "Additive", "Around", "Bilinear", "BlockSparse", "Cosine", "Dilated", "Dot", "Entmax", "Gaussian",
    "GlobalTokens", "Location", "LocationAware", "MultiHeadAttention", "NormalizedSigmoid", "PrefixLM", "RandomBlocks",
    "RelativeBias", "Rotary", "Sigmoid", "SlidingWindow", "Sparsemax", "Strided",
}  # fmt: skip
CONSTRUCTORS = {"__init__", "__new__", "__post_init__"}

Explained = type | Callable[..., object]
Node = ast.ClassDef | ast.FunctionDef


def public() -> dict[str, Explained]:
    named = {name: getattr(regard, name, None) for name in regard.__all__}
    return {name: thing for name, thing in named.items() if inspect.isclass(thing) or inspect.isfunction(thing)}


def definition(thing: Explained) -> Node:
    """As written: the docstring that `dataclass` makes up, or a base class passes on, does not count."""
    [node] = ast.parse(textwrap.dedent(inspect.getsource(thing))).body
    if not isinstance(node, Node):
        raise TypeError(f"{thing} is not defined by def or class")
    return node


def problems(thing: Explained) -> list[str]:
    node = definition(thing)
    text = ast.get_docstring(node)
    if not text:
        return ["has no docstring"]
    expected, documented = parameters(thing), entries(section(text, "Args"))
    if dataclasses.is_dataclass(thing):
        documented |= {field.name for field in dataclasses.fields(thing) if "help" in field.metadata}
    found = [f"Args: lacks {name}" for name in sorted(expected - documented)]
    found += [f"Args: names {name}, which it does not take" for name in sorted(documented - expected)]
    if returns(node) and not (section(text, "Returns") or section(text, "Yields")):
        found.append("Returns: is missing")
    if raises(node) and not section(text, "Raises"):
        found.append("Raises: is missing")
    return found


def parameters(thing: Explained) -> set[str]:
    """What a caller may set or read: parameters, and fields of a dataclass."""
    if inspect.isclass(thing) and issubclass(thing, enum.Enum | BaseException):
        return set()  # made by the class itself, or from a message
    starred = inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD
    names = {name for name, value in inspect.signature(thing).parameters.items() if value.kind not in starred}
    if dataclasses.is_dataclass(thing):
        names |= {field.name for field in dataclasses.fields(thing)}
    return {name for name in names if not name.startswith("_")}


def section(text: str, title: str) -> str:
    found = re.search(rf"^{title}:[ \t]*\n((?:[ \t]+\S.*(?:\n|$)|[ \t]*\n)+)", text, re.MULTILINE)
    return textwrap.dedent(found[1]) if found else ""


def entries(body: str) -> set[str]:
    heads = [line.partition(":")[0] for line in body.splitlines() if re.match(r"[\w`*]", line) and ":" in line]
    return {name for head in heads for name in re.findall(r"\w+", re.sub(r"\(.*?\)", "", head))}


def returns(node: Node) -> bool:
    if isinstance(node, ast.ClassDef):
        return False
    return node.returns is None or ast.unparse(node.returns) not in ("None", "NoReturn", "Never")


def raises(node: Node) -> bool:
    bodies: list[ast.stmt] = [node]
    if isinstance(node, ast.ClassDef):
        bodies = [method for method in node.body if isinstance(method, ast.FunctionDef) and method.name in CONSTRUCTORS]
    return any(isinstance(inner, ast.Raise) for body in bodies for inner in ast.walk(body))


@pytest.mark.parametrize("name", sorted(public()))
def test_public_name_is_explained(name: str) -> None:
    assert problems(public()[name]) == []


def test_values_that_a_paper_defines_are_public() -> None:
    assert sorted(SOURCED - set(public())) == []


@pytest.mark.parametrize("name", sorted(SOURCED & set(public())))
def test_source_is_named(name: str) -> None:
    text = ast.get_docstring(definition(public()[name])) or ""
    assert re.search(r"^Source: .*\d{4}", text, re.MULTILINE), f"{name} says no `Source:` with authors and year"


def undocumented(size: int) -> int:
    return size


def half_documented(size: int, scale: float) -> float:
    """Scale.

    Args:
        size: of it.
        ratio: a name that it had before.
    """
    if size < 0:
        raise ValueError(f"size is {size}")
    return size * scale


@dataclasses.dataclass(frozen=True)
class Documented:
    """A value.

    Args:
        left, right: bounds, (H,):
            a second line.
        scale (float): of it.

    Raises:
        ValueError: a negative bound.

    >>> 1
    1
    """

    left: int
    right: int
    scale: float = 1.0

    def __post_init__(self) -> None:
        if self.left < 0:
            raise ValueError(f"left is {self.left}")


def test_the_checker_finds_what_is_missing() -> None:
    assert problems(undocumented) == ["has no docstring"]
    assert problems(half_documented) == [
        "Args: lacks scale",
        "Args: names ratio, which it does not take",
        "Returns: is missing",
        "Raises: is missing",
    ]
    assert problems(Documented) == []
