"""What a text begins with is read before each of its pieces, and what cannot be split is read whole or refused."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from regard.errors import DataError
from regard.tasks.source import LONGEST_WHOLE, Source, encode, read_source
from regard.tasks.split import Piece
from tests.checkpoints.made import SENTENCES, tokenizer

TWO = f"{SENTENCES[0]} {SENTENCES[2]}"
PIECES = [Piece(SENTENCES[0], " "), Piece(SENTENCES[2])]


@pytest.mark.parametrize(
    "begin", [">>fra<< ", ">>fra<<", "  >>zho_Hant<<  ", "<2fr> ", "<2pt-BR>", "translate English to German: "]
)
def test_a_language_or_task_at_the_beginning_is_no_part_of_the_pieces(begin: str) -> None:
    longest = len(tokenizer().encode(begin.strip() + SENTENCES[2])) + 3
    assert read_source(tokenizer(), begin + TWO, max_length=longest) == Source(begin, PIECES)
    assert read_source(tokenizer(), TWO, max_length=longest, prefix=begin) == Source(begin, PIECES)
    assert read_source(tokenizer(), begin, max_length=longest) == Source("", [Piece(begin)])
    both = read_source(tokenizer(), ">>fra<< x", max_length=longest, prefix="a: ")
    assert both == Source("a: >>fra<< ", [Piece("x")])


@pytest.mark.parametrize(
    "text", [">> fra << x", "a >>fra<< x", "<b>x</b>", "<2> x", "translate this: x", "summarize: x"]
)
def test_other_beginnings_are_text(text: str) -> None:
    assert read_source(tokenizer(), text, max_length=99) == Source("", [Piece(text)])


@given(
    st.text(alphabet="ab .\n\xa0\u200b<>2:", max_size=40), st.sampled_from(["", ">>fra<< ", "p: "]), st.integers(20, 60)
)
def test_prefix_and_pieces_are_the_text_and_fit(text: str, prefix: str, longest: int) -> None:
    source = read_source(tokenizer(), text, max_length=longest, split_length=22, prefix=prefix)
    assert source.prefix + "".join(part for piece in source.pieces for part in piece) == prefix + text
    read = encode(tokenizer(), [source.prefix + piece.text.strip() for piece in source.pieces])
    assert all(len(ids) < longest for ids in read)


def test_what_cannot_be_split_is_read_whole_or_refused() -> None:
    text = " ".join([TWO] * 9)
    tokens = len(tokenizer().encode(text)) + 1
    assert read_source(tokenizer(), text, max_length=9, split_length=5, whole=True) == Source("", [Piece(text)])
    assert read_source(tokenizer(), text, max_length=9, whole=True, model_max_length=tokens).pieces == [Piece(text)]
    with pytest.raises(DataError, match=rf"text 3 has {tokens} tokens and is read whole.* at most {tokens - 1}"):
        read_source(tokenizer(), text, max_length=9, whole=True, model_max_length=tokens - 1, number=3)
    with pytest.raises(DataError, match=f"at most {LONGEST_WHOLE}"):
        read_source(tokenizer(), text * 99, max_length=9, whole=True)
    with pytest.raises(DataError, match="is read whole"):
        read_source(tokenizer(), text, max_length=9, whole=True, model_max_length=tokens + 1, prefix="summarize: ")


@pytest.mark.parametrize(
    ("text", "prefix"), [("", "translate English to German: "), ("translate English to German: ", "")]
)
def test_a_translation_is_split_by_a_model_that_reads_others_whole(text: str, prefix: str) -> None:
    found = read_source(tokenizer(), text + TWO, max_length=60, whole=True, prefix=prefix)
    assert found == Source("translate English to German: ", PIECES)


def test_a_prefix_without_room_for_a_text_is_refused() -> None:
    with pytest.raises(DataError, match=r"prefix='a b c d e f g' has \d+ tokens, and the model reads at most 4"):
        read_source(tokenizer(), "x", max_length=5, prefix="a b c d e f g")
