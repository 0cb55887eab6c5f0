"""Every text survives its tokens, no text becomes a mark, and the same texts give the same tokenizer."""

import json
import random
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from regard.data.spaces import normalized
from regard.data.tokenizer import BYTES, LONGEST_PIECE, MARKS, RESERVED, SPACE, Tokenizer
from regard.errors import CheckpointError
from tests.data.made import made_pairs

TEXTS = [text for pair in made_pairs(300) for text in pair] + ["l'acqua, il vento.", "perché (no)?"] * 5
TOKENIZER = Tokenizer.train(TEXTS, vocab_size=400)


@given(st.text(alphabet=st.characters(exclude_categories=["Cs"], exclude_characters=SPACE)))
@example("  two  spaces, \t tab\n\nend ")
@example("</s><s><pad><0x41>")
@example("漢字かな 👩‍👩‍👧 ǅ e\u0301")
@example("a" * 1000)
def test_every_text_survives(text: str) -> None:
    ids = TOKENIZER.encode(text)
    assert all(len(MARKS) <= i < TOKENIZER.size for i in ids)
    assert TOKENIZER.decode(ids) == normalized(text)
    assert [i for _, span in TOKENIZER.words(ids) for i in span] == list(range(len(ids)))


def test_ids_have_their_order() -> None:
    assert (TOKENIZER.pad, TOKENIZER.bos, TOKENIZER.eos) == (0, 1, 2)
    assert TOKENIZER.pieces([0, 1, 2, 3, 258]) == ["<pad>", "<s>", "</s>", "<0x00>", "<0xFF>"]
    assert TOKENIZER.encode("漢")[-3:] == [3 + byte for byte in "漢".encode()]


def test_frequent_words_are_one_piece() -> None:
    ids = TOKENIZER.encode("acqua, vento 42.")
    assert TOKENIZER.pieces(ids) == ["acqua", ",", "vento", "4", "2", "."]
    assert TOKENIZER.words([*ids, 2]) == [
        ("acqua,", range(2)), ("vento", range(2, 3)), ("42.", range(3, 6)), ("</s>", range(6, 7)),
    ]  # fmt: skip


def test_scripts_without_spaces_have_a_word_a_piece() -> None:
    tokenizer = Tokenizer.train(["私は本", "本は私"] * 3, vocab_size=300)
    ids = tokenizer.encode("本は 私")
    assert "".join(word for word, _ in tokenizer.words(ids)) == "本は私"
    assert len(tokenizer.words(ids)) == 3


def test_texts_full_of_marks_teach_no_marks() -> None:
    tokenizer = Tokenizer.train(["<s> </s> <pad> <0x41> strong" for _ in range(50)], vocab_size=400)
    ids = tokenizer.encode("<s></s> <pad><0x41> strong")
    assert min(ids) >= len(RESERVED)
    assert tokenizer.decode(ids) == "<s></s> <pad><0x41> strong"


def test_batches_are_the_same_as_one_by_one() -> None:
    ids = TOKENIZER.encode_batch(TEXTS[:20])
    assert ids == [TOKENIZER.encode(text) for text in TEXTS[:20]]
    assert TOKENIZER.decode_batch(ids) == TEXTS[:20]
    assert TOKENIZER.encode_batch([]) == []


def test_marks_are_not_decoded_and_broken_bytes_are_shown() -> None:
    ids = TOKENIZER.encode("vento")
    assert TOKENIZER.decode([1, *ids, 2, 0, 0]) == "vento"
    assert TOKENIZER.decode([3 + 0xE6]) == "\ufffd"
    assert TOKENIZER.decode([]) == ""


def test_small_texts_have_few_pieces_and_none_has_the_bytes() -> None:
    assert Tokenizer.train([], vocab_size=1000).size == len(RESERVED) + 1  # and the space
    small = Tokenizer.train(["ab ab"], vocab_size=1000)
    assert len(RESERVED) < small.size < len(RESERVED) + 10
    assert small.decode(small.encode("tutto")) == "tutto"


@pytest.mark.parametrize("vocab_size", [260, 300, 450])
def test_the_size_is_kept_where_there_are_many_characters(vocab_size: int) -> None:
    texts = [chr(0x4E00 + n % 997) + chr(0x4E00 + n % 499) for n in range(3000)]
    tokenizer = Tokenizer.train(texts, vocab_size=vocab_size)
    assert tokenizer.size <= vocab_size
    again = Tokenizer.train(texts, vocab_size=vocab_size)
    assert again.fingerprint == tokenizer.fingerprint
    shuffled = random.Random(0).sample(texts, len(texts))
    assert Tokenizer.train(shuffled, vocab_size=vocab_size).fingerprint == tokenizer.fingerprint


def test_pieces_are_not_long() -> None:
    tokenizer = Tokenizer.train(["-" * 100, "precipitevolissimevolmente"] * 50, vocab_size=400)
    assert max(map(len, tokenizer.pieces(range(len(RESERVED), tokenizer.size)))) <= LONGEST_PIECE


def test_saved_and_loaded(tmp_path: Path) -> None:
    TOKENIZER.save(tmp_path / "tokenizer.json")
    assert [path.name for path in tmp_path.iterdir()] == ["tokenizer.json"]
    loaded = Tokenizer.load(tmp_path / "tokenizer.json")
    assert loaded.fingerprint == TOKENIZER.fingerprint
    assert loaded.encode_batch(TEXTS) == TOKENIZER.encode_batch(TEXTS)


def test_a_file_without_the_rules_for_spaces_is_read_with_them(tmp_path: Path) -> None:
    """As they were written before there were any."""
    path = tmp_path / "tokenizer.json"
    TOKENIZER.save(path)
    plain = json.loads(path.read_bytes())
    plain["normalizer"] = {"type": "NFC"}
    path.write_text(json.dumps(plain))
    assert Tokenizer.load(path).encode("a\u00a0b\u00ad c") == TOKENIZER.encode("a b c")


def test_odd_spaces_teach_nothing() -> None:
    odd = [text.replace(" ", "\u00a0\u200b") for text in TEXTS]
    assert Tokenizer.train(odd, vocab_size=400).fingerprint == TOKENIZER.fingerprint


def test_hugging_face_reads_the_file(tmp_path: Path) -> None:
    import tokenizers

    TOKENIZER.save(tmp_path / "tokenizer.json")
    other = tokenizers.Tokenizer.from_file(str(tmp_path / "tokenizer.json"))
    assert other.encode(TEXTS[0]).ids == TOKENIZER.encode(TEXTS[0])
    assert other.encode(f"\ufeff{TEXTS[0]}\u00a0").ids == TOKENIZER.encode(TEXTS[0])
    assert other.decode(TOKENIZER.encode(TEXTS[0])) == TEXTS[0]


def test_a_file_cut_off_anywhere_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "tokenizer.json"
    TOKENIZER.save(path)
    whole = path.read_bytes()
    for end in range(0, len(whole) - 1, 997):
        path.write_bytes(whole[:end])
        with pytest.raises(CheckpointError, match=r"tokenizer\.json is damaged"):
            Tokenizer.load(path)


def test_changed_bytes_are_refused_or_do_no_harm(tmp_path: Path) -> None:
    path = tmp_path / "tokenizer.json"
    TOKENIZER.save(path)
    whole, random_ = path.read_bytes(), random.Random(0)
    for _ in range(300):
        place = random_.randrange(len(whole))
        path.write_bytes(whole[:place] + bytes([random_.randrange(256)]) + whole[place + 1 :])
        try:
            Tokenizer.load(path).encode(TEXTS[0])
        except CheckpointError as error:
            assert "tokenizer.json" in str(error)  # noqa: PT017


@pytest.mark.parametrize(
    "model",
    [
        [], {"vocab": [], "merges": []}, {"vocab": {}, "merges": None}, {"vocab": {"a": "b"}, "merges": []},
        {"vocab": {"a": 0}, "merges": []}, {"vocab": {"a": 0}, "merges": [["a"]]}, {"vocab": {"a": [1]}, "merges": [1]},
        {"vocab": {**{p: i for i, p in enumerate(RESERVED)}, "ab": len(RESERVED)}, "merges": [["a", "b"]]},
        {"vocab": {p: i for i, p in enumerate((*BYTES, *MARKS))}, "merges": []},
        {"vocab": {**{p: i for i, p in enumerate(RESERVED)}, "abc": len(RESERVED)}, "merges": [["abc"]]},
    ],
)  # fmt: skip
def test_files_of_other_content_are_refused(tmp_path: Path, model) -> None:
    path = tmp_path / "tokenizer.json"
    path.write_text(json.dumps({"model": model}))
    with pytest.raises(CheckpointError, match="not a tokenizer of regard"):
        Tokenizer.load(path)


def test_characters_alone(tmp_path: Path) -> None:
    characters = Tokenizer.of_characters(["a cab", "abba"])
    assert [characters.token_of(i) for i in range(len(RESERVED), characters.size)] == [SPACE, "a", "b", "c"]
    assert characters.decode(characters.encode("cab a")) == "cab a"
    assert len(characters.encode("cab a")) == 6  # with the space before the first word
    assert characters.decode(characters.encode("abc é")) == "abc é"  # in bytes
    characters.save(tmp_path / "tokenizer.json")
    assert Tokenizer.load(tmp_path / "tokenizer.json").fingerprint == characters.fingerprint
