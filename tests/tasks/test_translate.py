"""What comes out of translating is in order, whole, and the same as searching by hand."""

import pytest

from regard.decode.generate import generate
from regard.decode.search import Beam, Greedy
from regard.tasks.split import Piece
from regard.tasks.translate import candidates, translate
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
    [whole] = translate(module, tokenizer(), [text], search=Greedy(), longest=longest)
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
