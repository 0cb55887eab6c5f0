"""White space and invisible characters in one form, for texts that are trained on and texts that are run alike.

White space of any kind and length becomes one space, none at the ends. Characters that cannot be seen are dropped: soft
hyphens, zero-width spaces, byte order marks, marks of direction, control characters, fillers. Three kinds are dropped
only where they have no meaning:

    joiners               U+200C, U+200D: kept between letters of scripts that they shape (Persian, Hindi), and in emoji
    variation selectors   kept after a character that has variants: emoji, ideographs, symbols, Mongolian letters
    tags                  kept after the black flag, of which they make another

The rules are regular expressions, so that the `tokenizers` package applies them too, and `tokenizer.json` holds them.

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
# U+2581 is the sign for a space in the vocabularies of SentencePiece and in regard's own.
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
# Arabic to Sinhala, Tibetan to Burmese, Khmer, Mongolian, and the like: not Thai, not Lao.
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
    """What is replaced by what, in order, in the syntax of a regular expression engine.

    A pattern names the character before it looks around, which lets the engines skip what has none.
    """

    def one_of(*ranges: Ranges) -> str:
        parts = (escaped(a) if a == b else f"{escaped(a)}-{escaped(b)}" for a, b in itertools.chain(*ranges))
        return f"[{''.join(parts)}]"

    joiner, selector, tag = map(one_of, (JOINERS, SELECTORS, TAGS))
    joined, varied = one_of(JOINED, SYMBOLS), one_of(VARIED)
    follows = f"(?<!{joined}{joiner})(?<!{varied}{escaped(EMOJI_SELECTOR)}{joiner})"  # neither of these
    without_meaning = [
        f"{joiner}(?:{follows}|(?!{joiner}*{joined}))",
        f"{selector}(?<!{varied}{selector})(?!{escaped(KEYCAP)})",
        f"{tag}(?<!{one_of(FLAG, TAGS)}{tag}){tag}*",
    ]
    return [
        (one_of(INVISIBLE), ""),
        ("|".join(without_meaning), ""),
        (f"{one_of(SPACE, OTHER_SPACES)}{{2,}}|{one_of(OTHER_SPACES)}", " "),
    ]


RULES = [(re.compile(pattern), by) for pattern, by in _rules("\\U{:08x}".format)]
_ODD = "".join(f"\\U{a:08x}-\\U{b:08x}" for a, b in [*OTHER_SPACES, *INVISIBLE, *JOINERS, *SELECTORS, *TAGS])
ODD = re.compile(f"[{_ODD}]")  # what a rule may replace, but for the usual space
SEEN = re.compile(f"[^ {_ODD}]")
DROPPED = RULES[0][0]  # what is dropped wherever it stands


def normalized(text: str) -> str:
    """A text with single spaces, without what cannot be seen, in Unicode's form NFC.

    >>> normalized("  a\\u00a0b\\u200b\\tc ")
    'a b c'
    """
    if text.isascii() and text.isprintable():
        return " ".join(text.split())
    for pattern, by in RULES:
        text = pattern.sub(by, text)
    return unicodedata.normalize("NFC", text).strip()


def is_blank(text: str) -> bool:
    """Whether a text has nothing that can be seen."""
    return not SEEN.search(text)


def readable(text: str, encode: Callable[[str], Sequence[int]], unknown: int | None) -> str:
    """A text without odd characters that a published tokenizer does not know.

    Args:
        text: any text.
        encode: gives the tokens of a text.
        unknown: the token of what is not known; None: there is none.

    Returns:
        The text, in which unknown white space is a space, and unknown characters that cannot be seen are dropped.
    """
    if unknown is None:
        return text
    for character in set(ODD.findall(text)):
        if unknown in encode(character):
            text = text.replace(character, " " if character.isspace() else "")
    return text


def unknown_of(tokenizer: Any) -> int | None:
    """The token of what a tokenizer does not know, None if it knows all."""
    found: int | None = tokenizer.role("unk") if hasattr(tokenizer, "role") else None
    return found


def normalizer() -> normalizers.Normalizer:
    """What does the same in a tokenizer of the `tokenizers` package."""
    steps = [normalizers.Replace(Regex(pattern), by) for pattern, by in _rules("\\x{{{:x}}}".format)]
    return normalizers.Sequence([*steps, normalizers.NFC(), normalizers.Strip()])
