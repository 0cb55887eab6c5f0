"""One object that does what its parts do, before and after it is saved."""

from pathlib import Path

import pytest
import torch

from regard.checkpoints import shipped as module
from regard.decode.search import Greedy
from regard.errors import CheckpointError, DataError
from regard.lens.see import look
from regard.tasks.load import load
from regard.tasks.translation import translate
from tests.checkpoints.made import SENTENCES, tokenizer, translator


def test_the_same_after_saving(tmp_path: Path) -> None:
    first = translator()
    first.save(tmp_path)
    again = load(tmp_path)
    assert again.max_source_length == first.max_source_length == 24
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
    whole = translate(translator().module, tokenizer(), [text], search=Greedy(), max_source_length=10_000)[0]
    assert translator(max_tokens=10_000).translate([text], search=Greedy())[0] == whole
    assert len(whole.pieces) == 1


def test_text_beyond_the_split_length_is_split_at_sentence_ends_only() -> None:
    text = " ".join(SENTENCES)
    made = translator(max_tokens=10_000, usual_tokens=24)
    found = made.translate([text], search=Greedy())[0]
    assert len(found.pieces) > 1
    assert all(piece.text in SENTENCES for piece in found.pieces)
    assert len(made.translate([text], search=Greedy(), whole=True)[0].pieces) == 1


def test_what_is_seen_is_the_translation() -> None:
    """Piece by piece, each of which attends to itself alone."""
    text = " ".join(SENTENCES)
    made = translator(max_tokens=10_000, usual_tokens=24)
    [found], seen = made.translate([text], search=Greedy()), made.see(text, search=Greedy())
    parts = [made.see(piece.text, search=Greedy()) for piece in found.pieces]
    assert seen.source == [word for part in parts for word in part.source]
    assert seen.target == [word for part in parts for word in part.target]
    assert seen.words("decoder")[1] == [word for part in parts for word in part.words("decoder")[1]]
    assert seen.pharaoh() == made.align(found)
    for path, weights in parts[0].weights.items():
        rows, columns = weights.shape[1:]
        assert torch.equal(seen.weights[path][:, :rows, :columns], weights)
        assert not seen.weights[path][:, :rows, columns:].any()


@pytest.mark.parametrize("odd", ["\u00a0", "  ", "\t", " \u200b", "\u2009\u2060"])
def test_alignments_are_of_the_words_whatever_the_spaces(odd: str) -> None:
    made, text = translator(max_tokens=24), f"{SENTENCES[0]} {SENTENCES[2]}"
    [plain, other] = made.translate([text, " " + text.replace(" ", odd) + " "], search=Greedy())
    assert len(plain.pieces) == len(other.pieces) > 1
    assert made.align(other) == made.align(plain)
    seen = made.see(SENTENCES[0].replace(" ", odd), SENTENCES[1])
    assert seen.source == made.see(SENTENCES[0], SENTENCES[1]).source


@pytest.mark.parametrize(("before", "prefix", "moved"), [("", "a b: ", 0), (">>fra<< ", "", 1), (">>fra<<", "", 0)])
def test_alignments_are_of_what_was_read_and_count_the_words_of_the_text(before: str, prefix: str, moved: int) -> None:
    text = f"{SENTENCES[0]} {SENTENCES[2]}"
    made = translator(max_tokens=2 + len(tokenizer().encode(before + prefix + SENTENCES[2])))
    [found] = made.translate([before + text], search=Greedy(), prefix=prefix)
    assert len(found.pieces) == 2
    first, second = (
        look(made.module, tokenizer(), found.prefix + piece.text, tokens)
        for piece, tokens in zip(found.pieces, found.candidates[0].tokens, strict=True)
    )
    heads, words = len(found.prefix.split()) - (before == ">>fra<<"), len(SENTENCES[0].split())
    links = [tuple(map(int, link.split("-"))) for link in made.align(found).split()]
    written = len(first.target) - 1
    for source, target in links:
        seen, row, begin = (first, target, 0) if target < written else (second, target - written, words)
        weights = seen.map().weights[row, heads:-1]
        if heads == len(found.prefix.split()):  # else the first word has the prefix in it
            assert source == moved + begin + int(weights.argmax())
    assert [target for _, target in links] == list(range(len(found.text.split())))
    assert max(source for source, _ in links) < len((before + text).split())


@pytest.mark.parametrize("text", ["\u200b", ">>fra<< \u200b", " \u00ad\ufeff"])
def test_what_cannot_be_seen_is_blank(text: str) -> None:
    for target in (None, "x"):
        with pytest.raises(DataError, match=r"expected 1 to 98: see one or a few sentences"):
            translator(max_tokens=99).see(text, target)


def test_a_prefix_is_seen_and_not_counted() -> None:
    made = translator(max_tokens=99)
    seen = made.see(SENTENCES[0], SENTENCES[1], prefix="a b: ")
    assert seen.source == ["a", "b:", *SENTENCES[0].split(), "[end]"]
    assert seen.source_numbers == [None, None, 0, 1, 2, 3, 4, None]
    assert {int(link.split("-")[0]) for link in seen.pharaoh().split()} <= set(range(5))


def test_targets_are_as_long_as_those_of_the_training() -> None:
    short, long = translator(), translator(target_excess=50)
    [cut], [other] = (made.translate([SENTENCES[0]], search=Greedy()) for made in (short, long))
    tokens = len(tokenizer().encode(SENTENCES[0]))
    assert not cut.finished
    assert len(cut.candidates[0].tokens[0]) == 2 * tokens + 16
    assert other.finished or len(other.candidates[0].tokens[0]) == 2 * tokens + 66
    assert not short.see(SENTENCES[0], search=Greedy()).finished
    [three] = long.translate([SENTENCES[0]], search=Greedy(), max_length=3)
    assert len(three.candidates[0].tokens[0]) == 3
    assert long.evaluate([(SENTENCES[0], "x")], search=Greedy(), max_length=3).translations == [three]
    assert len(long.see(SENTENCES[0], search=Greedy(), max_length=3).target) <= 4


def test_a_model_that_shortens_reads_texts_whole() -> None:
    text = " ".join(SENTENCES)
    plain, summarizer = translator(length_ratio=0.9), translator(length_ratio=0.2)
    assert (plain.whole, summarizer.whole) == (False, True)
    assert len(plain.translate([text], search=Greedy())[0].pieces) > 1
    [found] = summarizer.translate([text], search=Greedy())
    assert [piece.text for piece in found.pieces] == [text]
    assert summarizer.evaluate([(text, "x")], search=Greedy()).translations == [found]
    with pytest.raises(DataError, match=r"is read whole.*at most 4096"):
        summarizer.translate([text * 99], search=Greedy())


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


def test_the_shipped_model_reads_odd_spaces_as_spaces() -> None:
    text = "This package contains the documentation and the examples."
    odd = [
        text.replace(" ", "\u00a0"),
        text.replace(" and", "\u202f\u2009and").replace("the", "the\u3000", 1),
        text.replace(" and", "\tand\n"),
        "\ufeff" + text.replace("documentation", "docu\u00admen\u200bta\u2060tion"),
        f"\u200e{text}\u200f",
    ]
    nothing = ["\u200b", "\ufeff", "\u2060\u200d", "\u00ad"]
    expected, *found = load().translate([text, *odd, *nothing], search=Greedy())
    assert str(expected) == "Questo pacchetto contiene la documentazione e gli esempi."
    assert [one.candidates for one in found[: len(odd)]] == [expected.candidates] * len(odd)
    assert [str(one) for one in found[len(odd) :]] == [""] * len(nothing)
