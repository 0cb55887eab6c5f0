"""A space is a space, and what cannot be seen is not read; but joiners and selectors stay where they mean something."""

# ruff: noqa: RUF001

import sys
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from regard.data import spaces
from regard.data.spaces import is_blank, normalized, normalizer, readable

NORMALIZER = normalizer()
RANGES = (
    spaces.SPACE, spaces.OTHER_SPACES, spaces.INVISIBLE, spaces.JOINERS, spaces.SELECTORS, spaces.TAGS, spaces.FLAG,
    spaces.SYMBOLS, spaces.JOINED, spaces.VARIED,
)  # fmt: skip
EDGES = [chr(code) for ranges in RANGES for first, last in ranges for code in (first, last)]
LETTERS = [*"abé #*5漢می", "\u0928", "\u20e3", "\U0001f469", "\u2764"]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("  two  spaces,\t tab\r\nend ", "two spaces, tab end"),
        ("no\u00a0break \u202fthin\u2009wide\u3000line\u2028end", "no break thin wide line end"),
        ("docu\u00admen\u200bta\u2060tion\ufeff", "documentation"),
        ("\ufeff\u200eThis \u202bone\u202c \u2066two\u2069\u200f", "This one two"),
        ("bell\x07 \x1b[2J\x00", "bell [2J"),
        ("Auf\u200clage, co\u200doperate\ufe0f", "Auflage, cooperate"),
        ("e\u0301 e\u200b\u0301", "é é"),
        ("می\u200cخواهم", "می\u200cخواهم"),
        ("می\u200eخواهم \u200cو\u200c ", "میخواهم و"),
        ("می\u200e\u200c\u200c\u200eخواهم", "می\u200cخواهم"),
        (
            "\u0915\u094d\u200d\u0937 \u0dc1\u0dca\u200d\u0dbb\u0dd3",
            "\u0915\u094d\u200d\u0937 \u0dc1\u0dca\u200d\u0dbb\u0dd3",
        ),
        ("👩\u200d👩\u200d👧 🏳\ufe0f\u200d🌈 👩🏽\u200d💻", "👩\u200d👩\u200d👧 🏳\ufe0f\u200d🌈 👩🏽\u200d💻"),
        ("❤\ufe0f 5\ufe0f\u20e3 5\ufe0f a\ufe0f", "❤\ufe0f 5\ufe0f\u20e3 5 a"),
        (
            "🏴\U000e0067\U000e0062\U000e007f a\U000e0067\U000e0062\U000e007fb",
            "🏴\U000e0067\U000e0062\U000e007f ab",
        ),
        ("\u845b\U000e0100 \u1820\u180b", "\u845b\U000e0100 \u1820\u180b"),
        ("\u2581a\u2581\u2581b", "a b"),
        ("\u200b \u2060\u200d\u00ad\ufe0f", ""),
    ],
)
def test_what_becomes_of_a_text(text: str, expected: str) -> None:
    assert normalized(text) == NORMALIZER.normalize_str(text) == expected
    assert is_blank(text) == (not expected)


@given(st.lists(st.sampled_from([*EDGES, *LETTERS, *"\u200c\u200d\ufe0f" * 9]), max_size=9).map("".join))
def test_both_engines_do_the_same_and_twice_is_once(text: str) -> None:
    found = normalized(text)
    assert NORMALIZER.normalize_str(text) == found == normalized(found)
    assert is_blank(text) == (not found)


@given(st.text(max_size=20))
def test_both_engines_agree_on_any_text(text: str) -> None:
    assert NORMALIZER.normalize_str(text) == normalized(text)


def test_all_that_unicode_calls_a_space_or_ignorable() -> None:
    regex = pytest.importorskip("regex")
    every = "".join(chr(code) for code in range(sys.maxunicode + 1) if not 0xD800 <= code <= 0xDFFF)
    ignorable = regex.findall(r"\p{Default_Ignorable_Code_Point}", every)
    assert len(ignorable) > 4000
    assert [hex(ord(c)) for c in ignorable if normalized(f"a{c}b") != "ab"] == []
    controls = [c for c in every if unicodedata.category(c) == "Cc" and not c.isspace()]
    assert [hex(ord(c)) for c in controls if normalized(f"a{c}b") != "ab"] == []
    assert [hex(ord(c)) for c in every if c.isspace() and normalized(f"a{c}b") != "a b"] == []


def test_characters_that_a_tokenizer_does_not_know() -> None:
    known, unknown = "ab \u2009", 0

    def encode(text: str) -> list[int]:
        return [known.find(character) + 1 for character in text]

    text = "a\u00a0b\u2009a\u00adb☃"
    assert readable(text, encode, unknown) == "a b\u2009ab☃"
    assert readable(text, encode, None) == text
