"""Words as they can be shown: no control characters, and how wide they are."""

import unicodedata


def printable(word: str) -> str:
    """The word with "�" for each control character, and "␣" for an empty word."""
    return "".join(c if c.isprintable() else "�" for c in word) if word.strip() else "␣"


def width(word: str) -> int:
    """How many columns of a terminal the word takes."""
    return sum(_width(c) for c in word)


def shortened(word: str, columns: int) -> str:
    """The word, or its beginning and "…", in at most `columns` columns of a terminal."""
    if width(word) <= columns:
        return word
    characters, columns_used = [], 1
    for c in word:
        columns_used += _width(c)
        if columns_used > columns:
            break
        characters.append(c)
    return "".join(characters) + "…"


def _width(c: str) -> int:
    if unicodedata.combining(c):
        return 0
    return 2 if unicodedata.east_asian_width(c) in "WF" else 1
