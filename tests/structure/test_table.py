"""README's table of what works where is what the backends say today."""

from tests.contract import table


def test_readme_holds_the_table() -> None:
    found = table.between(table.README.read_text(encoding="utf-8"))
    assert found is not None, f"README.md lacks the lines {table.BEGIN} and {table.END}, between which the table stands"
    assert found == table.table(), "README.md is out of date: run `python -m tests.contract.table`"
