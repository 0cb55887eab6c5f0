"""Long texts are cut where it hurts least, and nothing of them is lost."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from regard.tasks.split import Piece, split


def words(texts: list[str]) -> list[int]:
    return [len(text.split()) for text in texts]


def characters(texts: list[str]) -> list[int]:
    return [4 * len(text) for text in texts]


@pytest.mark.parametrize(
    ("text", "longest", "expected"),
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
def test_where_it_is_cut(text: str, longest: int, expected: list[tuple[str, str]]) -> None:
    assert split(text, longest, words) == [Piece(*each) for each in expected]


def test_sentences_stay_together_up_to_the_usual_length_and_whole_up_to_the_longest() -> None:
    text = "One two. Three. Four five six seven. Eight, nine ten eleven twelve thirteen."
    assert [piece.text for piece in split(text, 5, words, usual=3)] == [
        "One two. Three.",
        "Four five six seven.",
        "Eight,",
        "nine ten eleven twelve thirteen.",
    ]
    assert [piece.text for piece in split(text, 99, words, usual=13)] == [text]
    assert split(text, 5, words, usual=99) == split(text, 5, words)


def test_scripts_without_spaces() -> None:
    assert [piece.text for piece in split("你好世界。再见世界。谢谢", 20, characters)] == [
        "你好世界。",
        "再见世界。",
        "谢谢",
    ]
    assert [piece.text for piece in split("abcdefgh", 12, characters)] == ["abc", "def", "gh"]


@given(st.text(alphabet="ab .!?\n,;。\"'", max_size=60), st.integers(4, 40))
def test_pieces_are_short_and_join_again(text: str, longest: int) -> None:
    pieces = split(text, longest, characters)
    assert "".join(part for piece in pieces for part in piece) == text
    assert all(4 * len(piece.text) <= longest for piece in pieces)
    assert all(not piece.gap.strip() for piece in pieces)


@pytest.mark.parametrize("text", ["x" * 300_000, "x " * 150_000, " " * 300_000, "." * 300_000, '."' * 150_000])
def test_long_text_takes_linear_time(text: str) -> None:
    pieces = split(text, 256, characters)
    assert "".join(part for piece in pieces for part in piece) == text
