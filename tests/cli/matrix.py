"""What every verb does with every kind of model, from trying: the tables of docs/verbs.md.

`python -m tests.cli.matrix` writes them into the page between its markers.
"""

import contextlib
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import pytest
from click.testing import CliRunner

from regard.cli.main import main
from tests.cli.kinds import KINDS, NO_MODELS

PAGE = Path(__file__).resolve().parents[2] / "docs" / "verbs.md"
BEGIN, END = "<!-- verbs: {} -->", "<!-- end verbs: {} -->"
FOLDER = "FOLDER"  # how messages call any folder
SHOWN = 100  # characters of a message

SHIPPED = "the model that regard ships"
NAMES = {  # what --model may say besides a folder
    "a file": "a-file",
    "a name that there is not": "nowhere",
    "a name on the hub, without `huggingface-hub`": "owner/name",
}
PAIRS = [("the cat sat .", "the mat ."), ("a cat .", "a mat .")]
TEXT = "the cat sat ."


class Outcome(NamedTuple):
    """How a command ended."""

    code: int
    output: str
    error: str
    exception: BaseException | None  # one that no verb should raise


def commands(kind: str, model: str | None) -> dict[str, list[str]]:
    """The command line of each verb.

    Args:
        kind: of model, as the tables call it.
        model: what --model says; None for no such option.
    """
    mask = "<mask>" if "RoBERTa" in kind else "[MASK]"
    option = [] if model is None else ["--model", model]
    return {
        "translate": ["translate", TEXT, *option],
        "evaluate": ["evaluate", "pairs.tsv", *option],
        "see": ["see", TEXT, *option],
        "fill": ["fill", f"the {mask} sat .", *option],
        "embed": ["embed", TEXT, *option],
        "complete": ["complete", "the cat", "--max-new-tokens", "3", *option],
        "summarize": ["summarize", "report.txt", *option],
        "classify": ["classify", TEXT, *option],
        "info": ["info", *option[1:]],
    }


def run(command: list[str]) -> Outcome:
    """A command's outcome, on a machine without huggingface_hub, so that no name is looked for in the network."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, "huggingface_hub", None)
        result = CliRunner().invoke(main, command)
    raised = None if isinstance(result.exception, SystemExit) else result.exception
    return Outcome(result.exit_code, result.stdout, result.stderr, raised)


def models(folder: Path) -> dict[str, str | None]:
    """All kinds, written into a folder that is the working one: what --model says of each."""
    (folder / "pairs.tsv").write_text("".join("\t".join(pair) + "\n" for pair in PAIRS))
    (folder / "report.txt").write_text(TEXT)
    (folder / "a-file").write_text("no model")
    written: dict[str, str | None] = {SHIPPED: None}
    for number, (kind, write) in enumerate({**KINDS, **NO_MODELS}.items()):
        name = f"model-{number}"
        (folder / name).mkdir()
        write(folder / name)
        written[kind] = name
    return written | NAMES


def tried(folder: Path) -> dict[str, dict[str, Outcome]]:
    """The outcome of each verb for each kind."""
    outcomes = {}
    with contextlib.chdir(folder):
        for kind, model in models(folder).items():
            each = {verb: run(command) for verb, command in commands(kind, model).items()}
            outcomes[kind] = {verb: _without_name(outcome, model) for verb, outcome in each.items()}
    return outcomes


def tables(outcomes: Mapping[str, Mapping[str, Outcome]]) -> dict[str, str]:
    """The tables of the page by name."""
    good = {kind: outcomes[kind] for kind in (SHIPPED, *KINDS)}
    bad = {kind: outcomes[kind] for kind in (*NO_MODELS, *NAMES)}
    verbs = list(next(iter(good.values())))
    rows = [["", *(f"`{verb}`" for verb in verbs)], ["---"] * (len(verbs) + 1)]
    rows += [[kind, *("no" if each[verb].code else "yes" for verb in verbs)] for kind, each in good.items()]
    faults = [["folder or name", "message"], ["---"] * 2]
    faults += [[kind, _said(each["translate"])] for kind, each in bad.items()]
    return {"models": _table(rows), "faults": _table(faults)}


def updated(page: str, found: Mapping[str, str]) -> str:
    """The page with its tables."""
    for name, table in found.items():
        begin, end = BEGIN.format(name), END.format(name)
        before, _, rest = page.partition(begin)
        after = rest.partition(end)[2]
        page = f"{before}{begin}\n\n{table}\n\n{end}{after}"
    return page


def _said(outcome: Outcome) -> str:
    message = outcome.error.strip().removeprefix("regard: error: ")
    return f"`{message if len(message) <= SHOWN else message[:SHOWN] + '…'}`"


def _without_name(outcome: Outcome, model: str | None) -> Outcome:
    return outcome if model is None else outcome._replace(error=outcome.error.replace(model, FOLDER))


def _table(rows: list[list[str]]) -> str:
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        written = updated(PAGE.read_text(encoding="utf-8"), tables(tried(Path(folder))))
    PAGE.write_text(written, encoding="utf-8")
