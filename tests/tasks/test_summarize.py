"""Summaries from files to texts: words that no vocabulary has, subwords, and scores beside baselines."""

import json
import random
from pathlib import Path
from typing import Any

import pytest
import torch

import regard as rg
from regard.errors import ConfigError, DataError
from regard.tasks.rouge import copied_share, first_sentence, first_words, mean_words, rouge
from regard.tasks.summarize import Summarize, Summarizer
from tests.cli.run import regard

KINDS = ["a fast parser", "a small editor", "an image viewer", "a music player"]
SMALL: dict[str, Any] = {
    "task": "summarize", "vocab_size": 300, "batch_tokens": 1200, "learning_rate": 0.01, "precision": "float32",
    "model_settings": {"embed_dim": 24, "hidden_dim": 24}, "evaluate_every": 60,
}  # fmt: skip


def write(path: Path, rows: int = 300) -> str:
    choice, lines = random.Random(0), []
    for i in range(rows):
        name, kind = "lib" + "".join(choice.choices("abcdefgh", k=5)), KINDS[i % 4]
        text = f"The package {name} is {kind}. People number {i} wrote it."
        lines.append(json.dumps({"body": text, "title": f"{kind} called {name}"}) + "\n")
    path.write_text("".join(lines))
    return str(path)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Summarizer]:
    folder = tmp_path_factory.mktemp("summarize")
    fields = {"document": "body", "summary": "title"}
    return folder, rg.train(write(folder / "docs.jsonl"), **SMALL, fields=fields, steps=60, out=folder / "run")


def test_it_copies_words_that_no_vocabulary_has(trained: tuple[Path, Summarizer]) -> None:
    folder, summarizer = trained
    text = "The package libzzyx is a small editor. People number 5 wrote it."
    [summary] = summarizer.summarize([text], search=rg.Greedy())
    assert str(summary) == "a small editor called libzzyx"
    assert summary.finished
    assert not summary.cut
    again = rg.load(folder / "run").summarize([text, "", "x " * 400], search=rg.Greedy())
    assert again[0].tokens == summary.tokens
    assert (again[1].text, again[2].cut) == ("", True)


def test_scores_stand_beside_two_baselines(trained: tuple[Path, Summarizer]) -> None:
    folder, summarizer = trained
    reader = Summarize.read([str(folder / "docs.jsonl")], fields={"document": "body", "summary": "title"})
    found = summarizer.evaluate(list(reader)[:20], search=rg.Greedy())
    assert found.scores.rougeL > 95
    assert found.copied is not None
    assert found.copied > 0.95
    assert found.first_sentence.rougeL < found.scores.rougeL
    assert found.documents == json.loads(json.dumps(found.to_plain()))["documents"] == 20
    assert "first sentence" in found.table()


def test_what_was_copied_is_seen(trained: tuple[Path, Summarizer]) -> None:
    _, summarizer = trained
    seen = summarizer.see("The package libzzyx is a small editor. People number 5 wrote it.", search=rg.Greedy())
    [weights] = seen.weights.values()
    assert seen.target[-2] == "libzzyx"
    assert seen.source[int(weights[0, -2].argmax())] == "libzzyx"
    torch.testing.assert_close(weights.sum(-1), torch.ones(1, len(seen.target)), rtol=0, atol=1e-5)


def test_the_verb(trained: tuple[Path, Summarizer]) -> None:
    folder, _ = trained
    (folder / "one.txt").write_text("The package libqqq is\na fast parser. People number 5 wrote it.\n")
    printed = regard("summarize", str(folder / "one.txt"), "--model", str(folder / "run"), "--greedy")
    assert printed.stdout.strip() == "a fast parser called libqqq"


def test_other_models_read_subwords(tmp_path: Path) -> None:
    data, fields = write(tmp_path / "docs.jsonl", 60), {"document": "body", "summary": "title"}
    options = {**SMALL, "model": "rnn", "max_tokens": 20, "fields": fields}
    summarizer = rg.train(data, **options, steps=2, out=tmp_path / "run")
    assert summarizer.tokenizer.kind == "own"
    [summary] = summarizer.summarize(["The package libzzyx is a small editor. People number 5 wrote it."])
    assert summary.cut
    assert summarizer.see("A small editor.").target


def test_first_words_and_sentences() -> None:
    assert first_sentence("One two, e.g. three. Four.") == "One two, e.g. three."
    assert first_sentence("no end") == "no end"
    assert first_words("one two  three", 2) == "one two"
    assert mean_words(["a b c", "a"]) == 2


def test_rouge_by_hand() -> None:
    found = rouge(["the cat sat"], ["the cat was sitting"])
    # words in common: the, cat; precision 2/3, recall 2/4; pairs in common: one of two and of three
    assert found.rouge1 == pytest.approx(100 * 2 * 2 / (3 + 4))
    assert found.rouge2 == pytest.approx(100 * 2 * 1 / (2 + 3))
    assert found.rougeL == pytest.approx(100 * 2 * 2 / (3 + 4))
    assert copied_share(["a libx", "b"], ["libx a", "liby b"], {"a", "b"}) == 0.5
    assert copied_share(["a"], ["a"], {"a"}) is None


def test_misuse(tmp_path: Path, trained: tuple[Path, Summarizer]) -> None:
    _, summarizer = trained
    data = write(tmp_path / "docs.jsonl", 40)
    with pytest.raises(ConfigError, match="the task 'summarize' has no such option"):
        rg.train(data, **SMALL, steps=1, out=tmp_path / "a", attention={"score": {"kind": "dot"}})
    with pytest.raises(DataError, match="missing field"):
        rg.train(data, **SMALL, steps=1, out=tmp_path / "b")
    with pytest.raises(DataError, match="no records to evaluate"):
        summarizer.evaluate([])
    with pytest.raises(DataError, match="text has no words"):
        summarizer.see(" ")
