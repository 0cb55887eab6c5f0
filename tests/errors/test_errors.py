"""Errors are of the class that is documented, and name the value and the remedy."""

from collections.abc import Callable

import pytest

from tests.errors.cases import CASES


@pytest.mark.parametrize(("call", "error_class", "text"), [pytest.param(*case[1:], id=case[0]) for case in CASES])
def test_error(call: Callable[[], object], error_class: type[Exception], text: str) -> None:
    with pytest.raises(error_class) as caught:
        call()
    assert type(caught.value) is error_class
    assert text
    assert text in str(caught.value)


def test_cases_have_names_of_their_own() -> None:
    names = [case[0] for case in CASES]
    assert sorted(names) == sorted(set(names))
