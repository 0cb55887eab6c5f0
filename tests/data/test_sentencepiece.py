"""SentencePiece vocabularies against SentencePiece itself: every piece, id, normalized text and decoded text."""

import random
import struct

import pytest

from regard.data.protobuf import fields
from regard.data.sentencepiece import SentencePiece
from regard.data.sentencepiece_model import USER_DEFINED, parse_sentencepiece
from regard.errors import CheckpointError, UnsupportedError
from tests.data.mixed_text import lines, trained

sentencepiece = pytest.importorskip("sentencepiece")

EDGES = [
    "", " ", "  \t ", "\x01", " \x01 ", "\u2581", " \u2581 \u2581", "a\u2581 b", "\u3000\u3000x\u3000",
    "\x01 \x01 a \x01 ", "<sep><sep> <se <sep>", " <sep> a", "ab ab  ab", "é!é!", "x" * 23, "\U0010ffff",
]  # fmt: skip
OPTIONS = [
    {"user_defined_symbols": ["<sep>", "<se", "ab", "é!", "xxx", "xxxxxxx"], "control_symbols": ["<control>"]},
    {"add_dummy_prefix": False},
    {"remove_extra_whitespaces": False, "split_by_whitespace": False},
    {"treat_whitespace_as_suffix": True, "normalization_rule_name": "nfkc_cf"},
    {"remove_extra_whitespaces": False, "treat_whitespace_as_suffix": True, "normalization_rule_name": "identity"},
    {"pad_id": 0, "eos_id": 1, "unk_id": 2, "bos_id": -1, "byte_fallback": True},
]


def pair(**options):
    """SentencePiece's own processor, and ours, of one vocabulary."""
    model = trained(**options)
    theirs = sentencepiece.SentencePieceProcessor(model_proto=model)
    return theirs, SentencePiece(parse_sentencepiece(model, "made.model"))


def assert_same(theirs, ours, texts):
    assert [ours.normalize(text) for text in texts] == [theirs.normalize(text) for text in texts]
    ids = theirs.encode(texts)
    assert [ours.encode(text) for text in texts] == ids
    draw = random.Random(2)
    ids += [draw.choices(range(theirs.vocab_size()), k=draw.randint(0, 20)) for _ in range(300)]
    ids += [draw.choices(range(3, 260), k=12) for _ in range(300)]  # bytes, where there are any
    assert [ours.decode(some) for some in ids] == theirs.decode(ids)


@pytest.mark.parametrize("byte_fallback", [False, True])
@pytest.mark.parametrize("model_type", ["unigram", "bpe"])
def test_ten_thousand_lines_in_four_vocabularies(model_type, byte_fallback):
    theirs, ours = pair(model_type=model_type, byte_fallback=byte_fallback)
    texts = lines(2500, seed=10 + byte_fallback + 2 * (model_type == "bpe")) + EDGES
    assert_same(theirs, ours, texts)
    assert [[piece for piece, _ in ours.pieces(text)] for text in texts[:200]] == theirs.encode(
        texts[:200], out_type=str
    )


@pytest.mark.parametrize("model_type", ["unigram", "bpe"])
@pytest.mark.parametrize("options", OPTIONS)
def test_options(options, model_type):
    theirs, ours = pair(model_type=model_type, **options)
    assert_same(theirs, ours, lines(80, seed=3) + EDGES)
    said = {"bos": theirs.bos_id(), "eos": theirs.eos_id(), "pad": theirs.pad_id()}
    assert ours.model.marks == {name: i for name, i in said.items() if i >= 0}
    assert ours.model.unknown == theirs.unk_id()


def test_user_defined_pieces_are_never_cut():
    _, ours = pair(model_type="unigram", user_defined_symbols=["<sep>"])
    [number] = [i for i, piece in enumerate(ours.model.pieces) if piece.kind == USER_DEFINED]
    assert ours.encode("aaa<sep>bbb").count(number) == 1


def test_a_file_that_is_cut_off_or_changed_is_refused_or_read():
    """Any damage is a CheckpointError, or leaves a file that says something; never another error."""
    model, draw = trained(vocab_size=300, hard_vocab_limit=False), random.Random(4)
    with pytest.raises(CheckpointError):
        parse_sentencepiece(model[:1000], "cut.model")
    for _ in range(300):
        damaged = bytearray(model[: draw.randint(1, len(model))] if draw.random() < 0.5 else model)
        for _ in range(draw.randint(1, 20)):
            damaged[draw.randrange(min(len(damaged), draw.choice([100, 10_000, 10**9])))] = draw.randrange(256)
        try:
            SentencePiece(parse_sentencepiece(bytes(damaged), "damaged.model")).encode("\uff28ello ｶﾞ 😀 e\u0301 --")
        except (CheckpointError, UnsupportedError):
            continue


def test_numbers_of_any_length_are_read():
    message = bytes([0x08, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0x01, 0x15]) + struct.pack("<f", 0.5)
    assert list(fields(message, "made")) == [(1, 0, 2**64 - 1), (2, 5, struct.pack("<f", 0.5))]
