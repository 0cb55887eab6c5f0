"""Damaged and unusable vocabularies of SentencePiece: see `cases.py`."""

import json
import struct
import tempfile
from collections.abc import Callable
from pathlib import Path

from regard.checkpoints.hub import read_tokenizer
from regard.data.charsmap import Charsmap
from regard.data.protobuf import fields
from regard.data.sentencepiece_model import parse_sentencepiece, read_sentencepiece
from regard.data.sentencepiece_tokenizer import SentencePieceTokenizer, t5_tokenizer
from regard.errors import CheckpointError, DataError, UnsupportedError


def field(number: int, content: bytes | int | float) -> bytes:
    """A field in protobuf's wire format; small numbers only."""
    if isinstance(content, float):
        return bytes([number << 3 | 5]) + struct.pack("<f", content)
    key = number << 3 | (0 if isinstance(content, int) else 2)
    wide = bytes([key]) if key < 128 else bytes([key & 127 | 128, key >> 7])
    return wide + (bytes([content]) if isinstance(content, int) else bytes([len(content)]) + content)


def piece(text: str | bytes, kind: int = 1, score: float = -1.0) -> bytes:
    content = text if isinstance(text, bytes) else text.encode()
    return field(1, field(1, content) + field(2, score) + field(3, kind))


MARKS = [piece("<pad>", 3), piece("</s>", 3), piece("<unk>", 2)]
GOOD = b"".join([*MARKS, piece("a"), piece("\u2581")])


def parsed(*parts: bytes) -> Callable[[], object]:
    return lambda: parse_sentencepiece(b"".join(parts), "made.model")


def loaded(text: str) -> Callable[[], object]:
    def call() -> object:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder, "tokenizer.json")
            path.write_text(text, encoding="utf-8")
            return SentencePieceTokenizer.load(path)

    return call


def in_a_folder(**files: bytes) -> Callable[[], object]:
    """The tokenizer of a folder with these files; two underscores are a dot."""

    def call() -> object:
        with tempfile.TemporaryDirectory() as name:
            for file, content in files.items():
                Path(name, file.replace("__", ".")).write_bytes(content)
            return read_tokenizer(Path(name), {})

    return call


CASES: list[tuple[str, Callable[[], object], type[Exception], str]] = [
    ("protobuf-wire", lambda: list(fields(b"\x0b", "x")), CheckpointError, "x: the field at byte 0 has wire type 3"),
    (
        "protobuf-length",
        lambda: list(fields(b"\x0a\xff\xff\x03abc", "x")),
        CheckpointError,
        "the field 1 at byte 0 says that it has 65535 bytes; 3 are left",
    ),
    ("protobuf-number", lambda: list(fields(b"\x08\xff", "x")), CheckpointError, "the number at byte 1 of 2 does not"),
    (
        "charsmap-size",
        lambda: Charsmap(b"\xff\xff\0\0ab\0", "x"),
        CheckpointError,
        "7 bytes says that its array has 65535",
    ),
    (
        "charsmap-text",
        lambda: Charsmap(struct.pack("<3I", 8, 0, 1 << 8 | 1) + b"\0", "x").longest("\x01", 0),
        CheckpointError,
        "points to byte",
    ),
    (
        "spm-missing",
        lambda: read_sentencepiece("/nowhere/spiece.model"),
        CheckpointError,
        "/nowhere/spiece.model: no vocabulary can be read (No such file",
    ),
    ("spm-field", parsed(GOOD, field(2, 3)), CheckpointError, "field 2, trainer, has wire type 0; expected 2"),
    ("spm-text", parsed(piece(b"\xff\xfe")), CheckpointError, "pieces[0]: text is not UTF-8: b'\\xff\\xfe'"),
    ("spm-twice", parsed(GOOD, piece("a")), CheckpointError, "piece 5 is Piece(text='a', score=-1.0, kind=1)"),
    ("spm-score", parsed(GOOD, piece("b", 1, float("inf"))), CheckpointError, "score=inf"),
    ("spm-unknown", parsed(piece("a")), CheckpointError, "of 1 pieces 0 are for the unknown and 0 for bytes"),
    (
        "spm-bytes",
        parsed(GOOD, field(2, field(35, 1))),
        CheckpointError,
        "0 for bytes; expected 1, and 256, with byte_fallback=True",
    ),
    (
        "spm-words",
        parsed(GOOD, field(2, field(3, 3))),
        UnsupportedError,
        "made.model has model_type=word, which is not",
    ),
    (
        "spm-denormalizer",
        parsed(GOOD, field(5, field(2, b"abc"))),
        UnsupportedError,
        "made.model has a denormalizer, which is not supported",
    ),
    (
        "spm-surrogate",
        lambda: t5_tokenizer(GOOD).encode("\ud800"),
        DataError,
        r"'\ud800' is not text that can be encoded in UTF-8",
    ),
    (
        "spm-ids",
        lambda: SentencePieceTokenizer(GOOD, ids={"a": "b"}, roles={"unk": "<unk>", "eos": "a"}),  # type: ignore[dict-item]
        CheckpointError,
        "1 without a number, such as ['a'], numbers of their own, and lacks [\"unk='<unk>'\"]",
    ),
    (
        "spm-two-vocabularies",
        in_a_folder(source__spm=GOOD, target__spm=GOOD, vocab__json=b"{}", target_vocab__json=b"{}"),
        UnsupportedError,
        "target_vocab.json, a vocabulary of targets beside that of sources, is not supported",
    ),
    (
        "spm-extra-ids",
        in_a_folder(spiece__model=GOOD, tokenizer_config__json=b'{"extra_ids": -1}'),
        CheckpointError,
        "extra_ids=-1; expected a number from 0 to 100000",
    ),
    (
        "spm-saved-missing",
        lambda: SentencePieceTokenizer.load("/nowhere/t.json"),
        CheckpointError,
        "/nowhere/t.json: no",
    ),
    (
        "spm-saved",
        loaded(json.dumps({"kind": "other", "source": None, "target": None, "ids": None, "extra": {}, "roles": {}})),
        CheckpointError,
        "no SentencePiece tokenizer of regard's: kind='other'",
    ),
]
