"""The tables of docs/checkpoints.md: what is made of each field of published settings, from the code's own tables.

`python -m tests.structure.checkpoints_table` writes them into the page between its two markers.
"""

from collections.abc import Mapping

from regard.checkpoints.families import FAMILIES
from regard.checkpoints.settings import Use, config_uses, generation_uses
from tests.structure.source import ROOT

PAGE = ROOT / "docs" / "checkpoints.md"
BEGIN, END = "<!-- tables: fields -->", "<!-- end tables -->"


def table() -> str:
    """The tables as Markdown."""
    every = [set(config_uses(name).items()) for name in FAMILIES]
    common = dict(set.intersection(*every))
    parts = ["### config.json", _section("Every family", common)]
    for name in FAMILIES:
        own = {field: use for field, use in config_uses(name).items() if field not in common}
        parts.append(_section(f"`{name}`", own))
    return "\n\n".join([*parts, "### generation_config.json", _generation()])


def between(text: str) -> str:
    """What stands between the markers of a page."""
    return text.split(BEGIN)[1].split(END)[0].strip()


def _section(title: str, uses: Mapping[str, Use]) -> str:
    lines = [f"| {title} | |", "| --- | --- |"]
    for use, fields in _by_use(uses):
        lines.append(f"| {use.kind}{f': {use.note}' if use.note else ''} | {_listed(fields)} |")
    return "\n".join(lines)


def _generation() -> str:
    lines = ["| field | |", "| --- | --- |"]
    for use, fields in _by_use(generation_uses()):
        lines.append(f"| {_listed(fields)} | {use.kind}: {use.note} |")
    return "\n".join(lines)


def _by_use(uses: Mapping[str, Use]) -> list[tuple[Use, list[str]]]:
    found: dict[Use, list[str]] = {}
    for field, use in uses.items():
        found.setdefault(use, []).append(field)
    order = ("read", "refused", "irrelevant")
    return sorted(found.items(), key=lambda item: (order.index(item[0].kind), item[0].note))


def _listed(fields: list[str]) -> str:
    return ", ".join(f"`{field}`" for field in sorted(fields))


def main() -> None:
    text = PAGE.read_text(encoding="utf-8")
    before, rest = text.split(BEGIN)
    PAGE.write_text(f"{before}{BEGIN}\n\n{table()}\n\n{END}{rest.split(END)[1]}", encoding="utf-8")


if __name__ == "__main__":
    main()
