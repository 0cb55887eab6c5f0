"""One object that does what its parts do, before and after it is saved."""

from pathlib import Path

import pytest
import torch

from regard.checkpoints import shipped as module
from regard.decode.search import Greedy
from regard.errors import CheckpointError
from regard.lens.see import look
from regard.tasks.load import load
from regard.tasks.translate import translate
from tests.checkpoints.made import SENTENCES, tokenizer, translator


def test_the_same_after_saving(tmp_path: Path) -> None:
    first = translator()
    first.save(tmp_path)
    again = load(tmp_path)
    assert again.longest == first.longest == 24
    assert again.translate(SENTENCES) == first.translate(SENTENCES)
    assert again.config["training"] == {"max_tokens": 24, "steps": 3}


def test_what_ships(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "SHIPPED", tmp_path / "shipped")
    monkeypatch.chdir(tmp_path)
    translator().save(tmp_path / "shipped")
    for name in (None, "en-it"):
        assert load(name).translate([SENTENCES[0]]) == translator().translate([SENTENCES[0]])
    (tmp_path / "en-it").mkdir()  # a folder of the user's own goes before
    with pytest.raises(CheckpointError, match=r"en-it/config\.json is missing"):
        load("en-it")


def test_long_text_is_split_where_training_ended() -> None:
    text = " ".join(SENTENCES)
    given = translator(max_tokens=24).translate([text], search=Greedy())[0]
    assert len(given.pieces) > 1
    whole = translate(translator().module, tokenizer(), [text], search=Greedy(), longest=10_000)[0]
    assert translator(max_tokens=10_000).translate([text], search=Greedy())[0] == whole
    assert len(whole.pieces) == 1


def test_text_of_more_than_usual_length_is_split_at_sentence_ends_only() -> None:
    text = " ".join(SENTENCES)
    made = translator(max_tokens=10_000, usual_tokens=24)
    found = made.translate([text], search=Greedy())[0]
    assert len(found.pieces) > 1
    assert all(piece.text in SENTENCES for piece in found.pieces)
    made.see(text, search=Greedy())  # is seen whole


def test_seeing_the_models_own_words_and_given_ones() -> None:
    made = translator()
    own = made.see(SENTENCES[0], search=Greedy())
    [tokens] = made.translate([SENTENCES[0]], search=Greedy())[0].candidates[0].tokens
    assert own.target[:-1] == [word for word, _ in tokenizer().words(tokens)]
    given = made.see(f" {SENTENCES[0]} ", SENTENCES[1])
    assert given.source[:-1] == ["This", "package", "contains", "the", "documentation."]
    assert given.target[:-1] == ["Questo", "pacchetto", "contiene", "la", "documentazione."]
    expected = look(made.module, tokenizer(), SENTENCES[0], tokenizer().encode(SENTENCES[1]))
    for path, weights in expected.weights.items():
        assert torch.equal(given.weights[path], weights)


def test_alignment_counts_on_from_piece_to_piece() -> None:
    made = translator(max_tokens=24)
    [translation] = made.translate([f"{SENTENCES[0]} {SENTENCES[0]}"], search=Greedy())
    assert len(translation.pieces) == 2
    parts = [made.translate([piece.text], search=Greedy())[0] for piece in translation.pieces]
    first, second = (made.align(part).split() for part in parts)
    words = len(SENTENCES[0].split())
    written = len(tokenizer().words(parts[0].candidates[0].tokens[0]))
    moved = [f"{words + int(s)}-{written + int(t)}" for s, t in (link.split("-") for link in second)]
    assert made.align(translation) == " ".join([*first, *moved])
    assert made.align(made.translate([" "])[0]) == ""


def test_evaluation_is_by_the_same_rules() -> None:
    made = translator()
    found = made.evaluate([(SENTENCES[0], SENTENCES[1])], search=Greedy())
    assert found.translations == made.translate([SENTENCES[0]], search=Greedy())
