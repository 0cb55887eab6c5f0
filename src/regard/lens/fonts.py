"""The fonts that a picture needs for its words, among those that are installed."""

import unicodedata
from collections.abc import Iterable

# In this order; DejaVu Sans comes with matplotlib, and others are tried after these.
PREFERRED = (
    "DejaVu Sans", "Noto Sans CJK JP", "Noto Sans CJK SC", "Source Han Sans", "WenQuanYi Zen Hei", "Hiragino Sans",
    "PingFang SC", "Microsoft YaHei", "Malgun Gothic", "Arial Unicode MS", "Noto Sans", "Noto Sans Arabic",
    "Noto Sans Devanagari", "Noto Sans Hebrew", "Noto Sans Thai", "Noto Emoji", "Symbola", "Segoe UI Emoji",
)  # fmt: skip
PLACEHOLDERS = "Last Resort"  # a font that comes with matplotlib, of boxes for all characters
UNDRAWN = {"Cc", "Cf", "Cs", "Mn", "Zs"}  # categories of characters that need no glyph, or join that of another


def covering(texts: Iterable[str]) -> tuple[list[str], list[str]]:
    """The font families for some texts.

    Args:
        texts: what is to be drawn.

    Returns:
        Families of installed fonts, DejaVu Sans first, and the characters that none of them has.
    """
    from matplotlib.font_manager import fontManager, get_font

    paths = {font.name: font.fname for font in fontManager.ttflist if font.style == "normal" and font.weight == 400}
    paths = {name: path for name, path in paths.items() if not name.startswith(PLACEHOLDERS)}
    left = {ord(c) for text in texts for c in text if unicodedata.category(c) not in UNDRAWN}
    families: list[str] = []
    for name in [*(name for name in PREFERRED if name in paths), *sorted(paths.keys() - set(PREFERRED))]:
        if families and not left:
            break
        try:
            has = left & get_font(paths[name]).get_charmap().keys()
        except (OSError, RuntimeError):  # a font of bitmaps, as those of colored emoji, which matplotlib cannot draw
            continue
        if has or not families:
            families.append(name)
            left -= has
    return families, sorted(map(chr, left))


def missing(texts: Iterable[str]) -> str:
    """A line on characters that no installed font has; empty if there are none."""
    _, left = covering(texts)
    if not left:
        return ""
    some, more = " ".join(left[:3]), f" and {len(left) - 3} more" if len(left) > 3 else ""
    return f"no installed font has the characters {some}{more}: install one, as Noto Sans CJK or Noto Emoji"
