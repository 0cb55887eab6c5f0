"""Run the command in this process, as the tests of each verb do."""

import functools
import re
import tempfile
from pathlib import Path

from click.testing import CliRunner, Result

from regard.cli.main import main
from tests.checkpoints.made import translator

CUT = re.compile(
    r"(?:lines?|texts?) [\d, .]+: .* cut (?:off )?at .* (?:greatest|maximum) length; raise it with --max-length\n"
)


def without_cut(said: str) -> str:
    """What a command says, but for the lines whose translations have no end, as a random model's often have none."""
    return CUT.sub("", said)


@functools.cache
def model_folder() -> Path:
    """A tiny trained model on disk, which lives as long as the tests run."""
    keep = tempfile.TemporaryDirectory()
    translator().save(keep.name)
    model_folder.keep = keep  # type: ignore[attr-defined]
    return Path(keep.name)


def regard(*words: str, stdin: str | bytes | None = None) -> Result:
    """What `regard words...` does; it never ends in a traceback."""
    result = CliRunner().invoke(main, list(words), input=stdin)
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result


def error(*words: str, stdin: str | bytes | None = None, code: int = 2) -> str:
    """The one message of a command that must fail, without its beginning."""
    result = regard(*words, stdin=stdin)
    assert result.exit_code == code, result.output
    beginning, _, message = result.stderr.partition("regard: error: ")
    assert beginning == ""
    assert "Traceback" not in message
    return message.strip()
