"""`regard complete`: one text as it comes, several as lines, JSON, and misuses."""

import functools
import json
import tempfile
from pathlib import Path

from regard.decode.search import Beam, Sample
from tests.checkpoints.language_models import completer
from tests.checkpoints.made import SENTENCES
from tests.cli.run import error, model_folder, regard


@functools.cache
def folder() -> str:
    keep = tempfile.TemporaryDirectory()
    completer().save(keep.name)
    folder.keep = keep  # type: ignore[attr-defined]
    return str(Path(keep.name))


def output(*words: str, stdin: str | None = None) -> str:
    result = regard("complete", "--model", folder(), "--max-new-tokens", "9", *words, stdin=stdin)
    assert result.exit_code == 0, result.stderr
    assert result.stderr == ""
    return result.stdout


def expected(texts, **settings) -> list[str]:
    return [one.text for one in completer().complete(texts, max_new_tokens=9, **settings)]


def line(text: str) -> str:
    return " ".join(text.splitlines())


def test_one_text_as_it_is() -> None:
    [text] = expected(SENTENCES[:1])
    assert output(SENTENCES[0]) == f"{text}\n"
    [text] = expected(SENTENCES[:1], search=Sample(seed=4))
    assert output(SENTENCES[0], "--sample", "--seed", "4") == f"{text}\n"


def test_several_texts_are_lines() -> None:
    lines = [line(text) for text in expected(SENTENCES)]
    assert output(*SENTENCES).split("\n")[:-1] == lines
    assert output("--batch-size", "1", stdin="\n".join(SENTENCES) + "\n").split("\n")[:-1] == lines
    assert output("--batch-size", "1", stdin="\ufeff" + "\n".join(SENTENCES)).split("\n")[:-1] == lines
    assert output(stdin="") == ""


def test_beam_search_and_n_best() -> None:
    found = completer().complete(SENTENCES[:2], search=Beam(3, n_best=2), max_new_tokens=9)
    lines = [f"{i}\t{line(one.text)}" for i, each in enumerate(found, start=1) for one in each.candidates]
    assert output("--beam", "3", "--n-best", "2", *SENTENCES[:2]).split("\n")[:-1] == lines
    assert len(output("--n-best", "2", SENTENCES[0]).split("\n")) == 3


def test_json_tells_all() -> None:
    [found] = completer().complete(["a"], max_new_tokens=9)
    [one] = found.candidates
    told = json.loads(output("--json", "a"))
    assert told == {"prompt": "a", "text": one.text, "score": one.score, "end": "length"}


def test_stop_strings() -> None:
    [text] = expected(["a"])
    assert output("a", "--stop", text[3:5], "--stop", "nowhere") == text[: text.index(text[3:5])] + "\n"


def test_misuses() -> None:
    assert "exclude each other" in error("complete", "a", "--greedy", "--beam", "2", "--model", folder())
    assert "--top-k needs --sample; this is --greedy" in error("complete", "a", "--top-k", "2", "--model", folder())
    assert "'0' is not a whole number" in error("complete", "a", "--max-new-tokens", "0", "--model", folder())
    message = error("complete", "a", "--model", str(model_folder()), code=1)
    assert "is a Translator, which cannot complete" in message
    assert "--stop" in regard("complete", "--help").stdout


def test_see(tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    result = regard("see", "The library reads", "--model", folder(), "--html", str(page))
    assert result.exit_code == 0, result.stderr
    assert "Attention of a text to itself" in result.stdout
    assert "library" in page.read_text()
    message = error("see", "a", "--target", "b", "--model", folder())
    assert "see of a model of this kind (TextGenerator) takes no target" in message
