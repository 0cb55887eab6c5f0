"""What a SentencePiece model file (.model, .spm) says: the pieces of a vocabulary, and how texts are normalized.

The file is one protobuf message. Only what decides pieces and ids is read; a file that needs more is refused by name.

Source: Kudo and Richardson 2018, arXiv 1808.06226; the message: sentencepiece_model.proto of google/sentencepiece.
"""

import math
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple, final

from regard.data.charsmap import Charsmap
from regard.data.protobuf import BYTES, FIXED32, VARINT, fields, float32, signed
from regard.errors import CheckpointError, UnsupportedError

NORMAL, UNKNOWN, CONTROL, USER_DEFINED, UNUSED, BYTE = range(1, 7)  # kinds of pieces
KINDS = range(NORMAL, BYTE + 1)
ALGORITHMS: dict[int, Literal["unigram", "bpe"]] = {1: "unigram", 2: "bpe"}
OTHERS = {3: "word", 4: "char"}
BYTE_PIECES = [f"<0x{byte:02X}>" for byte in range(256)]

# Of each message: number of a field, its name here, its wire type and what it is without the field.
Schema = dict[int, tuple[str, type, Any]]
MODEL: Schema = {
    1: ("pieces", list, None),
    2: ("trainer", bytes, b""),
    3: ("normalizer", bytes, b""),
    5: ("denormalizer", bytes, b""),
}
PIECE: Schema = {1: ("text", str, ""), 2: ("score", float, 0.0), 3: ("kind", int, NORMAL)}
TRAINER: Schema = {
    3: ("algorithm", int, 1),
    24: ("space_behind", bool, False),
    35: ("byte_fallback", bool, False),
    44: ("unknown_text", str, " \u2047 "),
    46: ("bos", str, "<s>"),
    47: ("eos", str, "</s>"),
    48: ("pad", str, "<pad>"),
}
NORMALIZER: Schema = {
    2: ("charsmap", bytes, b""),
    3: ("space_before", bool, True),
    4: ("single_spaces", bool, True),
    5: ("mark_spaces", bool, True),
}
WIRE = {str: BYTES, bytes: BYTES, list: BYTES, float: FIXED32, int: VARINT, bool: VARINT}


class Piece(NamedTuple):
    """One piece of the vocabulary; its id is its place."""

    text: str
    score: float
    kind: int


@final
@dataclass(frozen=True, kw_only=True)
class SentencePieceModel:
    """A vocabulary, and how a text becomes pieces of it.

    Args:
        pieces: in the order of their ids.
        algorithm: "unigram" or "bpe".
        byte_fallback: whether a character that no piece has is written as its UTF-8 bytes.
        unknown: the id of what is in no piece.
        marks: the ids of "bos", "eos" and "pad", of those that there are.
        unknown_text: what `unknown` is decoded as.
        charsmap: which sequences of characters are replaced.
        space_before: whether a text gets a space before it (or behind it, see `space_behind`).
        space_behind: whether words end with their space, rather than start with it.
        single_spaces: whether runs of spaces become one, and those at both ends go.
        mark_spaces: whether spaces are written as U+2581.
    """

    pieces: tuple[Piece, ...]
    algorithm: Literal["unigram", "bpe"]
    byte_fallback: bool
    unknown: int
    marks: dict[str, int]
    unknown_text: str
    charsmap: Charsmap
    space_before: bool
    space_behind: bool
    single_spaces: bool
    mark_spaces: bool


def read_sentencepiece(path: str | os.PathLike[str]) -> SentencePieceModel:
    """The vocabulary of a model file.

    Args:
        path: of a `.model` or `.spm` file.

    Returns:
        The vocabulary.

    Raises:
        CheckpointError: a file that is missing, damaged, or no SentencePiece model.
        UnsupportedError: a model of whole words or characters, or with a denormalizer.
    """
    try:
        data = Path(path).read_bytes()
    except OSError as error:
        raise CheckpointError(f"{path}: no vocabulary can be read ({error.strerror})") from error
    return parse_sentencepiece(data, str(path))


def parse_sentencepiece(data: bytes, what: str) -> SentencePieceModel:
    """The vocabulary that a model file's bytes say.

    Args:
        data: of the file.
        what: it is, for messages.

    Returns:
        The vocabulary.

    Raises:
        CheckpointError: bytes that are damaged, or no SentencePiece model.
        UnsupportedError: a model of whole words or characters, or with a denormalizer.
    """
    model = _message(data, MODEL, what)
    trainer = _message(model["trainer"], TRAINER, f"{what}: trainer_spec")
    normalizer = _message(model["normalizer"], NORMALIZER, f"{what}: normalizer_spec")
    denormalizer = _message(model["denormalizer"], NORMALIZER, f"{what}: denormalizer_spec")
    pieces = _pieces(model["pieces"], trainer["byte_fallback"], what)
    algorithm = ALGORITHMS.get(trainer["algorithm"])
    if algorithm is None or denormalizer["charsmap"]:
        kind = f"model_type={OTHERS.get(trainer['algorithm'], trainer['algorithm'])}"
        raise UnsupportedError(
            f"{what} has {kind if algorithm is None else 'a denormalizer'}, which is not supported; expected "
            "model_type=unigram or bpe, and texts that are decoded as they are"
        )
    ids = {piece.text: i for i, piece in enumerate(pieces) if piece.kind == CONTROL}
    return SentencePieceModel(
        pieces=pieces,
        algorithm=algorithm,
        byte_fallback=trainer["byte_fallback"],
        unknown=next(i for i, piece in enumerate(pieces) if piece.kind == UNKNOWN),
        marks={name: ids[trainer[name]] for name in ("bos", "eos", "pad") if trainer[name] in ids},
        unknown_text=trainer["unknown_text"],
        charsmap=Charsmap(normalizer["charsmap"], what),
        space_before=normalizer["space_before"],
        space_behind=trainer["space_behind"],
        single_spaces=normalizer["single_spaces"],
        mark_spaces=normalizer["mark_spaces"],
    )


def _message(data: bytes, schema: Schema, what: str) -> dict[str, Any]:
    """The fields of a message by name; the last one of a number counts, as protobuf has it."""
    found = {name: [] if kind is list else default for name, kind, default in schema.values()}
    for number, wire, content in fields(data, what):
        if number not in schema:
            continue
        name, kind, _ = schema[number]
        if wire != WIRE[kind]:
            raise CheckpointError(
                f"{what}: field {number}, {name}, has wire type {wire}; expected {WIRE[kind]}: damaged, or no "
                "SentencePiece model"
            )
        if kind is list:
            found[name].append(content)
        else:
            found[name] = _content(content, kind, f"{what}: {name}")
    return found


def _content(content: Any, kind: type, what: str) -> Any:
    if kind is float:
        return float32(content)
    if kind is str:
        try:
            return content.decode()
        except UnicodeDecodeError as error:
            raise CheckpointError(f"{what} is not UTF-8: {content[:20]!r}; the file is damaged") from error
    return signed(content) if kind is int else kind(content)


def _pieces(messages: list[bytes], byte_fallback: bool, what: str) -> tuple[Piece, ...]:
    """The pieces, checked one by one: what is wrong takes no memory."""
    found: dict[str, Piece] = {}
    for i, message in enumerate(messages):
        piece = Piece(**_message(message, PIECE, f"{what}: pieces[{i}]"))
        if not piece.text or piece.text in found or piece.kind not in KINDS or not math.isfinite(piece.score):
            raise CheckpointError(
                f"{what} is damaged, or no SentencePiece model: piece {i} is {piece}; expected a text of its own, a "
                "finite score, and a kind from 1 to 6"
            )
        found[piece.text] = piece
    unknown = [piece.text for piece in found.values() if piece.kind == UNKNOWN]
    of_bytes = [piece.text for piece in found.values() if piece.kind == BYTE]
    if len(unknown) != 1 or sorted(of_bytes) != (BYTE_PIECES if byte_fallback else []):
        raise CheckpointError(
            f"{what} is damaged, or no SentencePiece model: of {len(found)} pieces {len(unknown)} are for the unknown "
            f"and {len(of_bytes)} for bytes; expected 1, and {256 if byte_fallback else 0}, with "
            f"byte_fallback={byte_fallback}"
        )
    return tuple(found.values())
