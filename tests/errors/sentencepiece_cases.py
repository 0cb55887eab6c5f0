"""Damaged and unusable vocabularies of SentencePiece: see `cases.py`."""

import json
import struct
import tempfile
from collections.abc import Callable
from pathlib import Path

from regard.checkpoints.hub_tokenizer import read_tokenizer
from regard.data.sentencepiece_layouts import t5_tokenizer
from regard.data.sentencepiece_tokenizer import SentencePieceTokenizer, open_model
from regard.errors import CheckpointError, DataError, UnsupportedError


def number(x: int) -> bytes:
    """A varint of protobuf's wire format."""
    return bytes([x]) if x < 128 else bytes([x & 127 | 128]) + number(x >> 7)


def field(name: int, content: bytes | int | float) -> bytes:
    """A field in protobuf's wire format."""
    if isinstance(content, float):
        return number(name << 3 | 5) + struct.pack("<f", content)
    if isinstance(content, int):
        return number(name << 3) + number(content)
    return number(name << 3 | 2) + number(len(content)) + content


def piece(text: str | bytes, kind: int = 1, score: float = -1.0) -> bytes:
    content = text if isinstance(text, bytes) else text.encode()
    return field(1, field(1, content) + field(2, score) + field(3, kind))


MARKS = [piece("<pad>", 3), piece("</s>", 3), piece("<unk>", 2)]
GOOD = b"".join([*MARKS, piece("a"), piece("\u2581")])


def opened(*parts: bytes) -> Callable[[], object]:
    return lambda: open_model(b"".join(parts), "made.model")


def no_text() -> object:
    """A model that replaces "b" by bytes that are no text: units of a double array, then what replaces."""
    units = [1 << 10, *[0] * 255]  # the root, whose children stand at 1 ^ byte
    child = 1 ^ ord("b")
    units[child] = ord("b") | 1 << 8 | (child ^ 200) << 10  # a sequence ends here, and its value stands at 200
    units[200] = 1 << 31  # the first of the replacements
    charsmap = struct.pack("<257I", 4 * 256, *units) + b"\xff\xfe\0"
    model = GOOD + field(3, field(2, charsmap))
    ids = {"<unk>": 0, "</s>": 1}
    return SentencePieceTokenizer(model, ids=ids, roles={"unk": "<unk>", "eos": "</s>"}).encode("abc")


def loaded(text: str) -> Callable[[], object]:
    def call() -> object:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder, "tokenizer.json")
            path.write_text(text, encoding="utf-8")
            return SentencePieceTokenizer.load(path)

    return call


def in_a_folder(usual: str = "T5Tokenizer", **files: bytes) -> Callable[[], object]:
    """The tokenizer of a folder with these files; two underscores are a dot."""

    def call() -> object:
        with tempfile.TemporaryDirectory() as name:
            for file, content in files.items():
                Path(name, file.replace("__", ".")).write_bytes(content)
            return read_tokenizer(Path(name), usual)

    return call


CASES: list[tuple[str, Callable[[], object], type[Exception], str]] = [
    ("spm-cut", opened(GOOD[:-1]), CheckpointError, "made.model is damaged, or no SentencePiece model: INTERNAL"),
    ("spm-no-pieces", opened(), CheckpointError, "made.model is damaged, or no SentencePiece model: INTERNAL: unk is"),
    ("spm-text", opened(GOOD, piece(b"\xff\xfe")), CheckpointError, "can't decode byte 0xff in position 0"),
    ("spm-twice", opened(GOOD, piece("a")), CheckpointError, "a is already defined"),
    ("spm-score", opened(GOOD, piece("b", 1, float("inf"))), CheckpointError, "score is NaN or Inf"),
    ("spm-unknown", opened(piece("a")), CheckpointError, "unk is not defined"),
    ("spm-bytes", opened(GOOD, field(2, field(35, 1))), CheckpointError, "there are not 256 byte pieces"),
    ("spm-charsmap", opened(GOOD, field(3, field(2, b"\xff\xff\0\0ab\0"))), CheckpointError, "input blob size"),
    ("spm-no-text", no_text, CheckpointError, "the SentencePiece model is damaged: 'utf-8' codec can't decode"),
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
        "the vocabulary of 1 tokens has 1 without a valid id, such as ['a'], no duplicate ids, and lacks tokens for",
    ),
    (
        "spm-two-vocabularies",
        in_a_folder(
            "MarianTokenizer",
            source__spm=GOOD,
            target__spm=GOOD,
            vocab__json=b"{}",
            target_vocab__json=b"{}",
            tokenizer_config__json=b'{"separate_vocabs": true}',
        ),
        UnsupportedError,
        "tokenizer_config.json: separate_vocabs=True is not supported (Marian: sources and targets share one",
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
        "not a SentencePiece tokenizer of regard: kind='other', layout=None",
    ),
]
