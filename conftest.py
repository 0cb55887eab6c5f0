"""Settings that all tests and all examples in docstrings share."""

import pytest
import torch
from hypothesis import settings

# The same examples in every run, and no deadline: a slow moment of the machine is not a failure.
settings.register_profile("regard", derandomize=True, deadline=None)
settings.load_profile("regard")


@pytest.fixture(autouse=True)
def names_in_examples(doctest_namespace: dict[str, object]) -> None:
    """A docstring's example may say `rg` and `torch` without importing them."""
    import regard

    doctest_namespace.update(rg=regard, torch=torch)
