"""The page of the recorder's sweep holds no type whose weights are wrong."""

import re

from tests.lens.sweep import MEANING, PAGE, Verdict, page


def test_the_page_has_rows_and_none_is_wrong() -> None:
    text = PAGE.read_text(encoding="utf-8")
    counts = {name: int(count) for name, count in re.findall(r"^\| ([a-z ]+) \| (\d+) \|", text, re.MULTILINE)}
    assert set(counts) == set(MEANING)
    assert counts["wrong"] == 0
    assert counts["captured"] > 200
    rows = re.findall(r"^\| \S+ \| \w* \| ([a-z ]+) \|", text, re.MULTILINE)
    assert {name: rows.count(name) for name in MEANING} == counts


def test_a_page_of_one_type() -> None:
    text = page([Verdict("bert", "BertModel", "captured", 4, 1e-8, "")])
    assert "| bert | BertModel | captured | 4 | 1e-08 |" in text
    assert "| captured | 1 |" in text
