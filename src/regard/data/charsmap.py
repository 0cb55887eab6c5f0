"""What SentencePiece replaces in a text before it is cut into pieces: sequences of characters, the longest first.

The replacements stand in the model file as a double array (Darts) over the UTF-8 bytes of the sequences:

    size of the array in bytes, little-endian uint32 | units, uint32 each | replacements, each ended by a zero byte

A unit has the byte that leads to it, whether a sequence ends there, and how far its children are. Nothing is unfolded:
a text walks through the array, so the time is in proportion to the text whatever a file says.
"""

import struct
from typing import final

from regard.errors import CheckpointError

DEEPEST = 32  # characters of a sequence; Unicode's longest have 18
LEAF, VALUE, LABEL = 1 << 8, (1 << 31) - 1, (1 << 31) | 0xFF  # of a unit: a flag and two masks

Step = tuple[int, str | None]  # where the children are, and what replaces the sequence that ends here


@final
class Charsmap:
    """Replacements of sequences of characters.

    Args:
        blob: as the model file has it; empty for no replacements.
        what: it is, for messages.

    Raises:
        CheckpointError: sizes that don't fit, or replacements that are not UTF-8.
    """

    def __init__(self, blob: bytes, what: str) -> None:
        self._what = what
        self._units: tuple[int, ...] = ()
        self._texts = b""
        self._steps: dict[tuple[int, str], Step | None] = {}
        if not blob:
            return
        size = int.from_bytes(blob[:4], "little")
        if size % 4 or not 4 <= size < len(blob) - 4 or blob[-1]:
            raise CheckpointError(
                f"{what}: the precompiled_charsmap of {len(blob)} bytes says that its array has {size}; expected a "
                "multiple of 4, and texts behind it that end with a zero"
            )
        self._units = struct.unpack(f"<{size // 4}I", blob[4 : 4 + size])
        self._texts = blob[4 + size :]

    def longest(self, text: str, at: int) -> tuple[str, int]:
        """What stands for the longest known sequence that starts at a character, and how many characters that is.

        A character that starts none stands for itself.
        """
        first = self._step(0, text[at])
        if first is None:
            return text[at], 1
        found: tuple[str, int] | None = None
        step: Step | None = first
        for end in range(at + 1, min(len(text), at + DEEPEST) + 1):
            if step is None:
                break
            node, replacement = step
            if replacement is not None:
                found = replacement, end - at
            step = self._step(node, text[end]) if end < len(text) else None
        return found or (text[at], 1)

    def _step(self, node: int, character: str) -> Step | None:
        key = node, character
        if key not in self._steps:
            self._steps[key] = self._walk(node, character)
        return self._steps[key]

    def _walk(self, node: int, character: str) -> Step | None:
        """One character on from a node, where 0 is the root."""
        units = self._units
        if not units:
            return None
        place = node or _offset(units[0])
        leaf = False
        for byte in character.encode():
            place ^= byte
            if place >= len(units) or units[place] & LABEL != byte:
                return None
            leaf = bool(units[place] & LEAF)
            place ^= _offset(units[place])
        return place, self._text(place) if leaf else None

    def _text(self, leaf: int) -> str:
        start = self._units[leaf] & VALUE if leaf < len(self._units) else len(self._texts)
        if start >= len(self._texts):
            raise CheckpointError(
                f"{self._what}: the precompiled_charsmap has {len(self._texts)} bytes of texts, and a sequence that "
                f"points to byte {start}; the file is damaged"
            )
        return self._texts[start : self._texts.index(0, start)].decode(errors="replace")


def _offset(unit: int) -> int:
    return (unit >> 10) << ((unit & (1 << 9)) >> 6)
