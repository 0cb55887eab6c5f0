"""The table of docs/checkpoints_tokenizers.md, from the code's own.

`python -m tests.checkpoints.tokenizer_table` writes it between the page's two markers.
"""

from pathlib import Path

from regard.checkpoints.tokenizer_fields import ADDED_TOKEN, FILES, Field

PAGE = Path(__file__).resolve().parents[2] / "docs" / "checkpoints_tokenizers.md"
BEGIN, END = "<!-- table: fields of tokenizers -->", "<!-- end table -->"


def table() -> str:
    """A table for each file: fields that are treated alike, for the same reason, share a row."""
    parts = [part(f"`{name}`", fields) for name, fields in FILES.items()]
    return "\n\n".join([*parts, part("a token with flags", ADDED_TOKEN)])


def part(title: str, fields: dict[str, Field]) -> str:
    rows: dict[Field, list[str]] = {}
    for name, field in fields.items():
        rows.setdefault(field._replace(accepted=tuple(map(repr, field.accepted))), []).append(f"`{name}`")
    order = ["read", "irrelevant", "refused"]
    lines = [
        f"| {', '.join(names)} | {field.treatment} | {field.why}{unless(field)} |"
        for field, names in sorted(rows.items(), key=lambda row: order.index(row[0].treatment))
    ]
    return "\n".join([f"| {title} | | |", "| --- | --- | --- |", *lines])


def unless(field: Field) -> str:
    """What is accepted of a field that is refused, besides values that say nothing."""
    as_json = {"True": "`true`", "'basic'": '`"basic"`', "'wordpiece'": '`"wordpiece"`'}
    accepted = [as_json[x] for x in field.accepted if x in as_json]
    return f"; {accepted[0]} is accepted" if field.treatment == "refused" and accepted else ""


def between(text: str) -> str | None:
    """What stands between the markers."""
    start, end = text.find(BEGIN), text.find(END)
    return None if start < 0 or end < 0 else text[start + len(BEGIN) : end].strip()


if __name__ == "__main__":
    text = PAGE.read_text(encoding="utf-8")
    head, tail = text[: text.index(BEGIN)], text[text.index(END) :]
    PAGE.write_text(f"{head}{BEGIN}\n{table()}\n{tail}", encoding="utf-8")
