"""Messages in protobuf's wire format, as far as published vocabularies need it.

A message is a run of fields, each a key (number and wire type) and its content. What a file claims is never believed:
each length is held against the bytes that are left, and nothing is allocated that is not in the file.

Source: the encoding's description at protobuf.dev/programming-guides/encoding.
"""

import struct
from collections.abc import Iterator

from regard.errors import CheckpointError

VARINT, FIXED64, BYTES, FIXED32 = 0, 1, 2, 5  # wire types; 3 and 4, groups, are not used any more
FIXED = {FIXED64: 8, FIXED32: 4}  # bytes
LONGEST_VARINT = 10  # bytes, seven bits each

Field = tuple[int, int, int | bytes]


def fields(message: bytes, what: str) -> Iterator[Field]:
    """The fields of a message in the order of the file: number, wire type, content.

    Args:
        message: its bytes.
        what: it is, for messages.

    Yields:
        Integers for varints, bytes for all else.

    Raises:
        CheckpointError: a message that is cut off, or has a wire type that there is not.
    """
    at, size = 0, len(message)
    while at < size:
        key, start = varint(message, at, what)
        number, wire = key >> 3, key & 7
        if wire == VARINT:
            content, at = varint(message, start, what)
            yield number, wire, content
            continue
        if wire == BYTES:
            length, start = varint(message, start, what)
        elif wire in FIXED:
            length = FIXED[wire]
        else:
            raise CheckpointError(f"{what}: the field at byte {at} has wire type {wire}; expected 0, 1, 2 or 5")
        if number == 0 or length > size - start:
            raise CheckpointError(
                f"{what}: the field {number} at byte {at} says that it has {length} bytes; {size - start} are left"
            )
        at = start + length
        yield number, wire, message[start:at]


def varint(message: bytes, at: int, what: str) -> tuple[int, int]:
    """The unsigned 64-bit number that starts at a byte, and where it ends."""
    found = 0
    for i, byte in enumerate(message[at : at + LONGEST_VARINT]):
        found |= (byte & 0x7F) << (7 * i)
        if byte < 0x80:
            return found & (2**64 - 1), at + i + 1
    raise CheckpointError(f"{what}: the number at byte {at} of {len(message)} does not end")


def signed(x: int) -> int:
    """A varint as the negative number that it may stand for."""
    return x - 2**64 if x >= 2**63 else x


def float32(content: bytes) -> float:
    """What four bytes say."""
    [x] = struct.unpack("<f", content)
    number: float = x
    return number
