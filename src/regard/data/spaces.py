"""Normalization of white space and invisible characters, the same in training and inference.

White space of any kind and length becomes one space, and is stripped at the ends. Invisible characters are removed:
soft hyphens, zero-width spaces, byte order marks, direction marks, control characters, fillers. Three kinds are removed
only where they have no effect:

    joiners               U+200C, U+200D: kept between letters of scripts that they shape (Persian, Hindi), and in emoji
    variation selectors   kept after a character with variants: emoji, ideographs, symbols, Mongolian letters
    tags                  kept after the black flag, as in flags of regions

The rules are regular expressions, so that the `tokenizers` package can apply them and `tokenizer.json` store them.

Source: Unicode 16, Default_Ignorable_Code_Point and White_Space; for joiners RFC 5892, appendix A.
"""

import itertools
import re
import unicodedata
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from tokenizers import Regex, normalizers

Ranges = Iterable[tuple[int, int]]

SPACE: Ranges = [(0x20, 0x20)]
# U+2581 stands for a space in SentencePiece's and regard's own vocabularies.
OTHER_SPACES: Ranges = [
    (0x09, 0x0D), (0x1C, 0x1F), (0x85, 0x85), (0xA0, 0xA0), (0x1680, 0x1680), (0x2000, 0x200A), (0x2028, 0x2029),
    (0x202F, 0x202F), (0x205F, 0x205F), (0x2581, 0x2581), (0x3000, 0x3000),
]  # fmt: skip
INVISIBLE: Ranges = [
    (0x00, 0x08), (0x0E, 0x1B), (0x7F, 0x84), (0x86, 0x9F),  # control characters
    (0xAD, 0xAD), (0x034F, 0x034F), (0x061C, 0x061C), (0x200B, 0x200B), (0x200E, 0x200F), (0x202A, 0x202E),
    (0x2060, 0x206F), (0xFEFF, 0xFEFF), (0xFFF0, 0xFFFB), (0x1BCA0, 0x1BCA3), (0x1D173, 0x1D17A),
    (0x115F, 0x1160), (0x17B4, 0x17B5), (0x3164, 0x3164), (0xFFA0, 0xFFA0),  # fillers
    (0xE0000, 0xE001F), (0xE0080, 0xE00FF), (0xE01F0, 0xE0FFF),
]  # fmt: skip
JOINERS: Ranges = [(0x200C, 0x200D)]
SELECTORS: Ranges = [(0x180B, 0x180F), (0xFE00, 0xFE0F), (0xE0100, 0xE01EF)]
TAGS: Ranges = [(0xE0020, 0xE007F)]
FLAG: Ranges = [(0x1F3F4, 0x1F3F4)]
SYMBOLS: Ranges = [(0xA9, 0xA9), (0xAE, 0xAE), (0x203C, 0x2049), (0x2100, 0x2580), (0x2582, 0x2BFF), (0x1F000, 0x1FAFF)]
# Scripts with joiners: Arabic to Sinhala, Tibetan to Burmese, Khmer, Mongolian and others; not Thai, not Lao.
JOINED: Ranges = [
    (0x0600, 0x0DFF), (0x0F00, 0x109F), (0x1780, 0x180A), (0x1810, 0x18AF), (0x1A20, 0x1CFF), (0xA800, 0xABFF),
    (0xFB50, 0xFDFF), (0xFE70, 0xFEFE), (0x10A00, 0x10FFF), (0x11000, 0x11FFF), (0x1E900, 0x1E95F),
]  # fmt: skip
VARIED: Ranges = [
    *SYMBOLS, (0x1000, 0x109F), (0x1820, 0x18AF), (0x3001, 0x9FFF), (0xA840, 0xA87F), (0xF900, 0xFAFF),
    (0x20000, 0x3FFFF),
]  # fmt: skip
EMOJI_SELECTOR, KEYCAP = 0xFE0F, 0x20E3


def _rules(escaped: Callable[[int], str]) -> list[tuple[str, str]]:
    """Replacement rules (pattern, replacement) in order; `escaped` writes a code point in an engine's syntax.

    Patterns match the character before any lookaround, so that engines can skip texts without it.
    """

    def one_of(*ranges: Ranges) -> str:
        parts = (escaped(a) if a == b else f"{escaped(a)}-{escaped(b)}" for a, b in itertools.chain(*ranges))
        return f"[{''.join(parts)}]"

    joiner, selector, tag = map(one_of, (JOINERS, SELECTORS, TAGS))
    joined, varied = one_of(JOINED, SYMBOLS), one_of(VARIED)
    follows = f"(?<!{joined}{joiner})(?<!{varied}{escaped(EMOJI_SELECTOR)}{joiner})"  # neither of these
    without_effect = [
        f"{joiner}(?:{follows}|(?!{joiner}*{joined}))",
        f"{selector}(?<!{varied}{selector})(?!{escaped(KEYCAP)})",
        f"{tag}(?<!{one_of(FLAG, TAGS)}{tag}){tag}*",
    ]
    return [
        (one_of(INVISIBLE), ""),
        ("|".join(without_effect), ""),
        (f"{one_of(SPACE, OTHER_SPACES)}{{2,}}|{one_of(OTHER_SPACES)}", " "),
    ]


RULES = [(re.compile(pattern), by) for pattern, by in _rules("\\U{:08x}".format)]
_ODD = "".join(f"\\U{a:08x}-\\U{b:08x}" for a, b in [*OTHER_SPACES, *INVISIBLE, *JOINERS, *SELECTORS, *TAGS])
ODD = re.compile(f"[{_ODD}]")  # characters that a rule may replace, except U+0020
SEEN = re.compile(f"[^ {_ODD}]")
DROPPED = RULES[0][0]  # characters that are always removed


def normalized(text: str) -> str:
    """Normalize a text: single spaces, no invisible characters, Unicode NFC.

    >>> normalized("  a\\u00a0b\\u200b\\tc ")
    'a b c'
    """
    if text.isascii() and text.isprintable():
        return " ".join(text.split())
    for pattern, by in RULES:
        text = pattern.sub(by, text)
    return unicodedata.normalize("NFC", text).strip()


def is_blank(text: str) -> bool:
    """Whether a text has no visible character."""
    return not SEEN.search(text)


def readable(text: str, encode: Callable[[str], Sequence[int]], unknown: int | None) -> str:
    """Replace white space and invisible characters that a tokenizer does not know.

    Args:
        text: any text.
        encode: encodes a text as token ids.
        unknown: id of the unknown token; None if there is none.

    Returns:
        The text, with spaces for unknown white space, and without unknown invisible characters.
    """
    if unknown is None:
        return text
    for character in set(ODD.findall(text)):
        if unknown in encode(character):
            text = text.replace(character, " " if character.isspace() else "")
    return text


def unknown_of(tokenizer: Any) -> int | None:
    """The id of a tokenizer's unknown token, None if it has none."""
    unknown: int | None = tokenizer.role("unk") if hasattr(tokenizer, "role") else None
    return unknown


def normalizer() -> normalizers.Normalizer:
    """The same normalization as a normalizer of the `tokenizers` package."""
    steps = [normalizers.Replace(Regex(pattern), by) for pattern, by in _rules("\\x{{{:x}}}".format)]
    return normalizers.Sequence([*steps, normalizers.NFC(), normalizers.Strip()])
