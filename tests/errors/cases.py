"""Every misuse that the package answers with an error: what is called, the error, and what its message must say.

The text is the part that helps: the value that was wrong, and the remedy. tests/structure/test_raises.py fails for
a `raise` that no case here reaches.
"""

from collections.abc import Callable

# (id, call, exception class, text that must be in the message)
CASES: list[tuple[str, Callable[[], object], type[Exception], str]] = []
