"""What comes out of translating is in order, whole, and the same as searching by hand."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from regard.data.spaces import INVISIBLE, OTHER_SPACES
from regard.decode.generate import generate
from regard.decode.search import Beam, Greedy
from regard.tasks.split import Piece
from regard.tasks.translation import candidates, gaps, translate
from tests.checkpoints.made import SENTENCES, tokenizer, transformer


def test_the_text_is_what_the_search_found() -> None:
    module = transformer()
    ids = tokenizer().encode_batch(SENTENCES)
    found = generate(module, ids, search=Beam(2, n_best=2))
    given = translate(module, tokenizer(), SENTENCES, search=Beam(2, n_best=2))
    for translation, hypotheses in zip(given, found, strict=True):
        assert [one.tokens for one in translation.candidates] == [[one.tokens] for one in hypotheses]
        assert [one.score for one in translation.candidates] == [one.score for one in hypotheses]
        assert translation.text == tokenizer().decode(hypotheses[0].tokens) == str(translation)
        assert translation.score == hypotheses[0].score


def test_blank_texts_stay_and_are_not_run() -> None:
    given = translate(transformer(), tokenizer(), ["", "  ", SENTENCES[0], "\t"], search=Greedy())
    assert [not translation.text.strip() for translation in given] == [True, True, False, True]
    assert given[0].candidates[0].tokens == [[]]
    assert translate(transformer(), tokenizer(), ["", " "], search=Greedy())[1].text == ""
    assert translate(transformer(), tokenizer(), []) == []


def test_long_text_is_the_translations_of_its_sentences() -> None:
    module, text = transformer(), f"{SENTENCES[0]}\n\n{SENTENCES[2]}"
    longest = 1 + max(len(ids) for ids in tokenizer().encode_batch([SENTENCES[0], SENTENCES[2]]))
    [whole] = translate(module, tokenizer(), [text], search=Greedy(), max_source_length=longest)
    parts = translate(module, tokenizer(), [SENTENCES[0], SENTENCES[2]], search=Greedy())
    assert whole.pieces == [Piece(SENTENCES[0], "\n\n"), Piece(SENTENCES[2])]
    assert whole.text == f"{parts[0].text}\n\n{parts[1].text}"
    assert whole.score == pytest.approx((parts[0].score + parts[1].score) / 2)


def test_candidates_of_pieces_with_different_numbers() -> None:
    from regard.decode.search import Hypothesis

    ids = [tokenizer().encode(text) for text in ("the", "file", "files")]
    found = [[Hypothesis(ids[0], -1.0, True)], [Hypothesis(ids[1], -2.0, True), Hypothesis(ids[2], -4.0, False)]]
    joined = candidates(tokenizer(), [Piece("a", " "), Piece("b")], found)
    assert [(one.text, one.score, one.finished) for one in joined] == [
        ("the file", -1.5, True),
        ("the files", -2.5, False),
    ]


SPACES = st.sampled_from([x for edges in OTHER_SPACES for code in edges if (x := chr(code)).isspace()] + ["  "])
UNSEEN = st.sampled_from([chr(code) for edges in INVISIBLE for code in edges])


@settings(max_examples=20, deadline=None)
@given(st.data())
def test_odd_spaces_leave_a_translation_as_it_is(data: st.DataObject) -> None:
    """Pieces, tokens and scores, of a text that is split and of one that is not."""
    plain = f"{SENTENCES[0]} {SENTENCES[2]}"
    odd = "".join(data.draw(SPACES) if character == " " else character for character in plain)
    for _ in range(data.draw(st.integers(0, 4))):
        place = data.draw(st.integers(0, len(odd)))
        odd = odd[:place] + data.draw(UNSEEN) + odd[place:]
    how = {"search": Greedy(), "max_length": 6}
    for longest in (30, 99):
        expected, found = translate(transformer(), tokenizer(), [plain, odd], max_source_length=longest, **how)
        assert found.candidates == [expected.candidates[0]._replace(text=found.text)]
        assert found.text.replace("\n", " ") == expected.text


@pytest.mark.parametrize("text", ["\u200b", "\ufeff", "\u2060\u200d", "\u00ad \u00a0", "a. \u200b"])
def test_nothing_is_written_of_what_cannot_be_seen(text: str) -> None:
    [found] = translate(transformer(), tokenizer(), [text], search=Greedy(), max_source_length=12, prefix=">>fra<<")
    assert [bool(tokens) for tokens in found.candidates[0].tokens] == ["a" in piece.text for piece in found.pieces]
    assert found.finished or "a" in text


@pytest.mark.parametrize("how", ["in the text", "beside it"])
def test_a_language_is_read_before_each_piece(how: str) -> None:
    text, said = f"{SENTENCES[0]} {SENTENCES[2]}", ">>fra<< "
    longest = len(tokenizer().encode(said + SENTENCES[2])) + 1
    texts, prefix = ([said + text], "") if how == "in the text" else ([text], said)
    [found] = translate(transformer(), tokenizer(), texts, search=Greedy(), max_source_length=longest, prefix=prefix)
    assert (found.prefix, found.pieces) == (said, [Piece(SENTENCES[0], " "), Piece(SENTENCES[2])])
    sources = [tokenizer().encode(said + piece.text) for piece in found.pieces]
    expected = generate(transformer(), sources, search=Greedy())
    assert found.candidates[0].tokens == [one.tokens for [one] in expected]


def test_a_target_that_is_cut_is_marked_and_can_be_longer() -> None:
    ends = {}
    for length in (1, 5, 400):
        [found] = translate(transformer(), tokenizer(), [SENTENCES[0]], search=Greedy(), max_length=length)
        [tokens] = found.candidates[0].tokens
        ends[length] = found.finished
        assert len(tokens) == length if not found.finished else len(tokens) < length
    assert not ends[1]


@pytest.mark.parametrize(
    ("pieces", "texts", "expected"),
    [
        ([Piece("A.", "  "), Piece("B.")], ["X.", "Y."], [" ", ""]),
        ([Piece("A.", "\u00a0\u200b"), Piece("B.")], ["X.", "Y."], [" ", ""]),
        ([Piece("A.", "\n\n "), Piece("B.")], ["X.", "Y."], ["\n\n ", ""]),
        ([Piece("你好。"), Piece("再见")], ["Hello.", "Bye"], [" ", ""]),
        ([Piece("你好。"), Piece("再见")], ["你好。", "再见"], ["", ""]),
        ([Piece("ก" * 9), Piece("ก")], ["one", "two"], [" ", ""]),
        ([Piece("a" * 9), Piece("a")], ["one", "two"], ["", ""]),
        ([Piece("है।"), Piece("और")], ["One.", "two"], [" ", ""]),
        ([Piece("A。"), Piece(" "), Piece("B")], ["X.", "", "Y"], ["", "", ""]),
    ],
)
def test_what_stands_between_translated_pieces(pieces: list[Piece], texts: list[str], expected: list[str]) -> None:
    assert gaps(pieces, texts) == expected
