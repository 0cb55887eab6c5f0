"""Every verb with every kind of model works or gives one clear error, and docs/verbs.md says which."""

import pytest

from tests.cli import matrix
from tests.cli.kinds import KINDS, NO_MODELS
from tests.cli.matrix import NAMES, PAGE, SHIPPED, Outcome

pytest.importorskip("sentencepiece")
VERBS = list(matrix.commands("", ""))
Outcomes = dict[str, dict[str, Outcome]]


@pytest.fixture(scope="session")
def outcomes(tmp_path_factory: pytest.TempPathFactory) -> Outcomes:
    return matrix.tried(tmp_path_factory.mktemp("models"))


@pytest.mark.parametrize("kind", [SHIPPED, *KINDS, *NO_MODELS, *NAMES])
def test_each_verb_works_or_gives_one_error(kind: str, outcomes: Outcomes) -> None:
    for verb in VERBS:
        code, output, error, exception = outcomes[kind][verb]
        if exception is not None:
            raise AssertionError(f"{verb} raises {exception!r}") from exception
        assert code in (0, 1), (verb, error)
        if code:
            assert error.startswith("regard: error: "), verb
            assert len(error.splitlines()) == 1, (verb, error)
            assert output == "", verb
        else:
            assert output.endswith("\n"), verb  # a random model may write nothing but that


@pytest.mark.parametrize("kind", [*NO_MODELS, *NAMES])
def test_what_is_no_model_is_named(kind: str, outcomes: Outcomes) -> None:
    name = NAMES.get(kind, matrix.FOLDER)
    for verb in VERBS:
        code, _, error, _ = outcomes[kind][verb]
        assert code == 1 or verb == "info", verb  # which tells what it can of a folder that does not load
        assert name in error or matrix.FOLDER in error or code == 0, (verb, error)


def test_the_page_has_the_tables(outcomes: Outcomes) -> None:
    page = PAGE.read_text(encoding="utf-8")
    assert page == matrix.updated(page, matrix.tables(outcomes)), "run: python -m tests.cli.matrix"


def test_the_tables_say_what_happened() -> None:
    works, fails = Outcome(0, "x", "", None), Outcome(1, "", "regard: error: FOLDER has no head\n", None)
    kinds = {kind: {"fill": works, "translate": works} for kind in (SHIPPED, *KINDS)}
    kinds |= {kind: {"fill": fails, "translate": fails} for kind in (*NO_MODELS, *NAMES)}
    kinds["BERT"] = {"fill": works, "translate": fails}
    found = matrix.tables(kinds)
    assert "| BERT | yes | no |" in found["models"].splitlines()
    assert "| an empty folder | `FOLDER has no head` |" in found["faults"].splitlines()
