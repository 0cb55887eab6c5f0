"""Words by number, and words of a source beyond the vocabulary."""

from pathlib import Path

import pytest

from regard.data.word_tokenizer import WordTokenizer, split_words
from regard.errors import CheckpointError, DataError

TOKENIZER = WordTokenizer(["the", "cat", ",", ".", "a", "(", ")"])


def test_words_and_signs() -> None:
    assert split_words("The co-op's 3.5 km\u00a0run…") == ["The", "co-op's", "3.5", "km", "run", "…"]
    assert split_words(" \u200b ") == []


def test_the_most_frequent_words_are_kept() -> None:
    tokenizer = WordTokenizer.train(["b a b", "c a b"], vocab_size=6)
    assert tokenizer.size == 6
    assert tokenizer.pieces(range(4, 6)) == ["b", "a"]
    assert tokenizer.encode("b c") == [4, tokenizer.unk]


def test_words_of_a_source_beyond_the_vocabulary() -> None:
    ids, others = TOKENIZER.encode_source("the libfoo , the libbar , libfoo")
    assert others == ["libfoo", "libbar"]
    assert ids == [4, 11, 6, 4, 12, 6, 11]
    assert TOKENIZER.encode_target("a libbar libbaz", others) == [8, 12, TOKENIZER.unk]
    assert TOKENIZER.decode([8, 12, 2], others) == "a libbar"
    assert TOKENIZER.encode_source("the libfoo the", 2) == ([4, 11], ["libfoo"])
    with pytest.raises(DataError, match=r"ids \[13\] are beyond the 11 words and 2 of the source"):
        TOKENIZER.decode([13], others)


def test_text_is_spaced_as_usual() -> None:
    assert TOKENIZER.decode(TOKENIZER.encode("the cat (a cat), the cat.")) == "the cat (a cat), the cat."


def test_saved_and_read(tmp_path: Path) -> None:
    TOKENIZER.save(tmp_path / "t.json")
    again = WordTokenizer.load(tmp_path / "t.json")
    assert again.fingerprint == TOKENIZER.fingerprint
    for content in ("{", "[]", '{"words": [1]}'):
        (tmp_path / "t.json").write_text(content)
        with pytest.raises(CheckpointError, match=r"t\.json"):
            WordTokenizer.load(tmp_path / "t.json")
