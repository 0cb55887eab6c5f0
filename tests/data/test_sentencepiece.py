"""SentencePiece vocabularies against SentencePiece itself: every id and decoded text; and damaged files."""

import random
import struct
import subprocess
import sys

import pytest
import sentencepiece
from tokenizers import AddedToken

from regard.data.sentencepiece_tokenizer import SentencePieceTokenizer, open_model
from regard.errors import CheckpointError
from tests.data.mixed_text import lines, trained

EDGES = [
    "", " ", "  \t ", "\x01", " \x01 ", "\u2581", " \u2581 \u2581", "a\u2581 b", "\u3000\u3000x\u3000",
    "\x01 \x01 a \x01 ", "<sep><sep> <se <sep>", " <sep> a", "ab ab  ab", "é!é!", "x" * 23, "\U0010ffff", "\0a\0",
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
    return theirs, SentencePieceTokenizer(model, roles={"unk": "<unk>"}, after=())


def assert_same(theirs, ours, texts):
    ids = theirs.encode(texts)
    assert ours.encode_batch(texts) == ids
    draw = random.Random(2)
    ids += [draw.choices(range(theirs.vocab_size()), k=draw.randint(0, 20)) for _ in range(300)]
    ids += [draw.choices(range(3, min(260, len(theirs))), k=12) for _ in range(300)]  # bytes, if any
    marks = {i for i in range(theirs.vocab_size()) if theirs.is_control(i) or theirs.is_unknown(i)}
    plain = [[i for i in some if i not in marks] for some in ids]
    assert ours.decode_batch(ids) == [text.strip() for text in theirs.decode(plain)]


@pytest.mark.parametrize("byte_fallback", [False, True])
@pytest.mark.parametrize("model_type", ["unigram", "bpe"])
def test_ten_thousand_lines_in_four_vocabularies(model_type, byte_fallback):
    theirs, ours = pair(model_type=model_type, byte_fallback=byte_fallback)
    texts = lines(2500, seed=10 + byte_fallback + 2 * (model_type == "bpe"), marks=False) + EDGES
    assert_same(theirs, ours, texts)


@pytest.mark.parametrize("model_type", ["unigram", "bpe", "char", "word"])
@pytest.mark.parametrize("options", OPTIONS)
def test_options(options, model_type):
    if model_type in ("char", "word"):
        options = {**options, "byte_fallback": False, "hard_vocab_limit": False}
    theirs, ours = pair(model_type=model_type, **options)
    assert_same(theirs, ours, lines(80, seed=3, marks=False) + EDGES)
    assert ours.role("unk") == theirs.unk_id()


def test_user_defined_pieces_are_never_cut():
    theirs, ours = pair(model_type="unigram", user_defined_symbols=["<sep>"])
    assert ours.encode("aaa<sep>bbb").count(theirs.piece_to_id("<sep>")) == 1


def test_the_space_before_a_text_may_stand_before_the_first_part_alone():
    model = trained(vocab_size=700, normalization_rule_name="identity", remove_extra_whitespaces=False)

    def read(prefix_each):
        tokenizer = SentencePieceTokenizer(
            model, added=[AddedToken("<new>")], roles={"unk": "<unk>"}, after=(), prefix_each=prefix_each
        )
        return "".join(tokenizer.token_of(i) for i in tokenizer.encode("a<new>b<new> a")).replace("\u2581", "_")

    assert read(True) == "_a<new>_b<new>__a"
    assert read(False) == "_a<new>b<new>_a"


def test_a_file_that_is_cut_off_or_changed_is_refused_or_read():
    """Any damage is a CheckpointError, or leaves a file that says something; never another error."""
    model, draw = trained(vocab_size=300, hard_vocab_limit=False), random.Random(4)
    with pytest.raises(CheckpointError, match=r"cut\.model is damaged, or no SentencePiece model: INTERNAL"):
        open_model(model[:1000], "cut.model")
    for _ in range(300):
        damaged = bytearray(model[: draw.randint(1, len(model))] if draw.random() < 0.5 else model)
        for _ in range(draw.randint(1, 20)):
            damaged[draw.randrange(min(len(damaged), draw.choice([100, 10_000, 10**9])))] = draw.randrange(256)
        try:
            tokenizer = SentencePieceTokenizer(bytes(damaged), roles={"unk": "<unk>"}, after=())
            tokenizer.decode(tokenizer.encode("\uff28ello ｶﾞ 😀 e\u0301 --"))
        except CheckpointError:
            continue


# Changes what a model file says, not only its bytes; runs by itself, so that a crash of the process is seen.
HOSTILE = """
import random, sys
from sentencepiece import sentencepiece_model_pb2 as proto
from regard.data.sentencepiece_tokenizer import SentencePieceTokenizer
from regard.errors import CheckpointError

model, draw, read = sys.stdin.buffer.read(), random.Random(5), 0
TEXTS = ["", " ", "a" * 300, "ｶﾞ e\\u0301 \\x01", "\\u0f73\\u0344", "<new>\\U0010ffff\\u2581"]
for _ in range(200):
    m = proto.ModelProto.FromString(model)
    for _ in range(draw.randint(1, 3)):
        piece, kind = draw.choice(m.pieces), draw.randrange(6)
        if kind == 0:
            piece.type = draw.randint(1, 6)
        elif kind == 1:
            piece.score = draw.choice([float("nan"), float("inf"), 1e38, -1e38])
        elif kind == 2:
            piece.piece = draw.choice(["", "\\0", "<0x41>", "<0xZZ>", "\\u2581" * 50, "y" * 5000])
        elif kind == 3:
            del m.pieces[draw.randrange(len(m.pieces)) :]
            m.pieces.add(piece="a", score=-1.0)
        elif kind == 4:
            blob = bytearray(m.normalizer_spec.precompiled_charsmap)
            for _ in range(draw.randint(1, 200)):
                blob[draw.randrange(min(len(blob), draw.choice([8, 1024, 10**9])))] = draw.randrange(256)
            m.normalizer_spec.precompiled_charsmap = bytes(blob[: draw.choice([len(blob), draw.randrange(len(blob))])])
        else:
            name = draw.choice(["unk_id", "bos_id", "vocab_size", "model_type"])
            values = [1, 2, 3, 4] if name == "model_type" else [-1, 0, 5, 2**31 - 1]
            setattr(m.trainer_spec, name, draw.choice(values))
    try:
        tokenizer = SentencePieceTokenizer(m.SerializePartialToString(), roles={"unk": "<unk>"}, after=())
        for text in TEXTS:
            tokenizer.decode(tokenizer.encode(text))
        tokenizer.decode(range(tokenizer.size + 5))
        read += 1
    except CheckpointError:
        pass
print(read)
"""


def test_no_file_ends_the_process():
    pytest.importorskip("google.protobuf")
    model = trained(vocab_size=300, hard_vocab_limit=False)
    found = subprocess.run([sys.executable, "-c", HOSTILE], input=model, capture_output=True, timeout=300, check=False)
    assert found.returncode == 0, found.stderr.decode()[-1000:]
    assert int(found.stdout) > 20  # some of the files still say something


def test_a_charsmap_that_points_outside_of_itself_is_refused():
    """The kind of file with which earlier versions of the package read memory that is not theirs."""
    proto = pytest.importorskip("sentencepiece.sentencepiece_model_pb2")
    model = proto.ModelProto.FromString(trained(vocab_size=300, hard_vocab_limit=False))
    units = struct.pack("<256I", *[2**32 - 1] * 256)
    for blob in (b"\xff\xff\0\0ab\0", struct.pack("<I", len(units)) + units + b"\0", struct.pack("<I", 2**31) + units):
        model.normalizer_spec.precompiled_charsmap = blob
        with pytest.raises(CheckpointError, match="is damaged, or no SentencePiece model"):
            open_model(model.SerializeToString(), "made.model")
