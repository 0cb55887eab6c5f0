"""Names that the package has not: see `cases.py`."""

from collections.abc import Callable

import regard

CASES: list[tuple[str, Callable[[], object], type[Exception], str]] = [
    ("package-name", lambda: regard.atend, AttributeError, "module 'regard' has no attribute 'atend'"),
]
