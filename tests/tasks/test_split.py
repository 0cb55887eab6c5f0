"""Long texts are cut where it hurts least, and nothing of them is lost."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from regard.data.spaces import normalized
from regard.tasks.split import Piece, split


def words(texts: list[str]) -> list[int]:
    return [len(text.split()) for text in texts]


def characters(texts: list[str]) -> list[int]:
    return [4 * len(normalized(text)) for text in texts]


@pytest.mark.parametrize(
    ("text", "max_tokens", "expected"),
    [
        ("One two three.", 3, [("One two three.", "")]),
        ("One two. Three four. Five.", 4, [("One two. Three four.", " "), ("Five.", "")]),
        ("One two.  Three\n\nFour five", 2, [("One two.", "  "), ("Three", "\n\n"), ("Four five", "")]),
        ('He said "no." She left.', 3, [('He said "no."', " "), ("She left.", "")]),
        ("One, two three; four", 2, [("One,", " "), ("two three;", " "), ("four", "")]),
        ("one two three four five", 2, [("one two", " "), ("three four", " "), ("five", "")]),
        ("Version 1.5.2 is out", 4, [("Version 1.5.2 is out", "")]),
        ("", 1, [("", "")]),
        ("   ", 1, [("   ", "")]),
    ],
)
def test_where_it_is_cut(text: str, max_tokens: int, expected: list[tuple[str, str]]) -> None:
    assert split(text, max_tokens, words) == [Piece(*each) for each in expected]


def test_sentences_stay_together_up_to_the_split_length_and_whole_up_to_the_longest() -> None:
    text = "One two. Three. Four five six seven. Eight, nine ten eleven twelve thirteen."
    assert [piece.text for piece in split(text, 5, words, split_length=3)] == [
        "One two. Three.",
        "Four five six seven.",
        "Eight,",
        "nine ten eleven twelve thirteen.",
    ]
    assert [piece.text for piece in split(text, 99, words, split_length=13)] == [text]
    assert split(text, 5, words, split_length=99) == split(text, 5, words)


def test_scripts_without_spaces() -> None:
    assert [piece.text for piece in split("你好世界。再见世界。谢谢", 20, characters)] == [
        "你好世界。",
        "再见世界。",
        "谢谢",
    ]
    assert [piece.text for piece in split("abcdefgh", 12, characters)] == ["abc", "def", "gh"]


def test_no_piece_ends_with_an_abbreviation() -> None:
    text = "It reads many formats e.g. the usual ones and those of Dr. Brown i.e. the others vs. yours of No. 5"
    for max_tokens in range(3, 12):
        pieces = split(text, max_tokens, words)
        assert len(pieces) > 1
        assert not [piece for piece in pieces if piece.text.endswith(".")]


def test_paragraphs_are_translated_separately_with_a_split_length() -> None:
    text = "A heading\n\nOne two. Three.\n \nFour."
    assert split(text, 9, words, split_length=9) == [
        Piece("A heading", "\n\n"), Piece("One two. Three.", "\n \n"), Piece("Four.")
    ]  # fmt: skip
    assert split(text, 9, words) == [Piece(text)]


def test_a_letter_stays_with_its_accents() -> None:
    text = "\u0915\u0940" * 20 + "👩\u200d👩" * 9
    pieces = split(text, 12, characters)
    assert len(pieces) > 12
    assert not [piece for piece in pieces if piece.text[0] in "\u0940\u200d"]


def test_characters_that_cannot_be_seen_change_no_cut() -> None:
    plain = "One two e.g. three. Four five. Six"
    odd = plain.replace("e.", "\u200be\u200b.\u2060").replace(". F", ".\u200e \u200fF")
    pieces = split("\ufeff" + odd, 5, words)
    assert [normalized(piece.text) for piece in pieces] == [piece.text for piece in split(plain, 5, words)]
    assert "".join(part for piece in pieces for part in piece) == "\ufeff" + odd
    assert split("\u200b\u2060", 5, words) == [Piece("\u200b\u2060")]


ALPHABET = "abC .!?\n,;。।\"'\xa0\u3000\u200b\u2060\ufeff\u0301ก"


@given(st.text(alphabet=ALPHABET, max_size=60), st.integers(4, 40), st.none() | st.integers(4, 40))
def test_pieces_are_short_and_join_again(text: str, max_tokens: int, usual: int | None) -> None:
    pieces = split(text, max_tokens, characters, usual)
    assert "".join(part for piece in pieces for part in piece) == text
    assert all(characters([piece.text])[0] <= max_tokens for piece in pieces)
    assert all(not normalized(piece.gap) for piece in pieces)


@pytest.mark.parametrize("text", ["x" * 300_000, "x " * 150_000, " " * 300_000, "." * 300_000, '."' * 150_000])
def test_long_text_takes_linear_time(text: str) -> None:
    pieces = split(text, 256, characters)
    assert "".join(part for piece in pieces for part in piece) == text
