"""Words are those of the text as its reader counts them, whatever the spaces, and all tokens are in them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from regard.data.tokenizer import Tokenizer
from regard.lens.words import words_read, words_written
from tests.lens.models import SOURCE, tokenizer


def spans(words) -> list[int]:
    return [i for _, span in words.spans for i in span]


def test_a_word_is_what_spaces_part() -> None:
    found = words_read(tokenizer(), "  this\u00a0package \u2003contains,\tdocu\u00admentation \n")
    assert found.tokens == tokenizer().encode("this package contains, documentation")
    assert [word for word, _ in found.spans] == ["this", "package", "contains,", "documentation"]
    assert (found.numbers, found.count) == ([0, 1, 2, 3], 4)


def test_words_without_tokens_are_counted_and_not_shown() -> None:
    found = words_read(tokenizer(), "this \u200b package \u2060")
    assert [word for word, _ in found.spans] == ["this", "package"]
    assert (found.numbers, found.count) == ([0, 2], 4)


@pytest.mark.parametrize(("prefix", "first"), [("a b: ", 2), (">>fra<< ", 1), ("<2fr>", 0)])
def test_words_of_a_prefix_do_not_count(prefix: str, first: int) -> None:
    found = words_read(tokenizer(), f" {SOURCE} ", prefix)
    assert found.tokens == tokenizer().encode(prefix + SOURCE)
    assert [word for word, _ in found.spans] == (prefix + SOURCE).split()
    assert found.numbers == [*[None] * first, *range(4)]
    assert found.after(5).numbers == [*[None] * first, *range(5, 9)]
    assert found.after(5).count == 9


@given(st.text(alphabet="ab .,\u00a0\u3000\t\u200b\u2060é私は", max_size=30), st.sampled_from(["", "p: "]))
def test_numbers_are_those_of_split(text: str, prefix: str) -> None:
    found = words_read(tokenizer(), text, prefix)
    assert found.tokens == tokenizer().encode(prefix + text.strip())
    assert spans(found) == list(range(len(found.tokens)))
    if not set(text) & set("私は"):
        assert found.count == len(text.split())
        words = text.split()
        shown = [(word, number) for (word, _), number in zip(found.spans, found.numbers, strict=True)]
        assert all(
            word == words[number].replace("\u200b", "").replace("\u2060", "")
            for word, number in shown
            if number is not None
        )


@given(st.lists(st.integers(3, tokenizer().size - 1), max_size=30))
def test_written_words_are_those_of_the_text(tokens: list[int]) -> None:
    found = words_written(tokenizer(), tokens)
    assert spans(found) == list(range(len(tokens)))
    assert found.count == len(tokenizer().decode(tokens).split())
    assert found.numbers == (list(range(found.count)) if found.count else [None] * len(found.spans))


def test_written_spaces_go_with_the_next_word() -> None:
    space, word = tokenizer().encode("la")[0], tokenizer().encode("la")
    blank = next(i for i in range(tokenizer().size) if tokenizer().pieces([i]) == [" "])
    found = words_written(tokenizer(), [*word, blank, blank, *word, blank])
    assert [span for _, span in found.spans] == [range(len(word)), range(len(word), 2 * len(word) + 3)]
    assert [word for word, _ in found.spans] == ["la", "la"]
    assert space != blank


def test_scripts_that_part_no_words_have_a_word_a_piece() -> None:
    made = Tokenizer.train(["私は本", "本は私"] * 3, vocab_size=300)
    found = words_read(made, "本は 私 x")
    assert [word for word, _ in found.spans] == ["本", "は", "私", "x"]
    assert (found.numbers, found.count) == ([0, 1, 2, 3], 4)
    assert words_written(made, made.encode("本は 私")).numbers == [0, 1, 2]
