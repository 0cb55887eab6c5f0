"""Every misuse that the package answers with an error: what is called, the error, and what its message must say.

The text is the part that helps: the value that was wrong, and the remedy. The cases stand in the files `*_cases.py`
beside this one.
"""

import importlib
from collections.abc import Callable
from pathlib import Path

# (id, call, exception class, text that must be in the message)
Case = tuple[str, Callable[[], object], type[BaseException], str]

CASES: list[Case] = [
    case
    for path in sorted(Path(__file__).parent.glob("*_cases.py"))
    for case in importlib.import_module(f"tests.errors.{path.stem}").CASES
]
