"""The table of docs/operator.md of what works where is what the backends say today."""

from tests.contract import table


def test_readme_holds_the_table() -> None:
    found = table.between(table.PAGE.read_text(encoding="utf-8"))
    assert found is not None, (
        f"docs/operator.md lacks the lines {table.BEGIN} and {table.END}, between which the table stands"
    )
    assert found == table.table(), "docs/operator.md is out of date: run `python -m tests.contract.table`"
