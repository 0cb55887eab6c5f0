"""Sentence boundaries in a text of any language.

A mark of another script than Latin ends a sentence by itself (Hindi's danda, Urdu's full stop, "。"). After ".", "!",
"?" and "…" white space must follow, and no small letter unless a full stop stands after a long word. A full stop after
an abbreviation ends no sentence: the lists below are of English and its neighbors, short on purpose. Where a rule errs,
it errs towards longer pieces: a cut within a sentence costs its translation, a missed one only time.

Source: the lists of nonbreaking prefixes of Moses (Koehn et al. 2007), from which the common ones are taken.
"""

import re
from collections.abc import Iterator
from enum import IntEnum
from typing import NamedTuple


class Strength(IntEnum):
    """Strength of a boundary in a text."""

    CLAUSE = 1  # an end of line, a space between clauses of Thai, a full stop that an unknown abbreviation may have
    SENTENCE = 2
    PARAGRAPH = 3


class Break(NamedTuple):
    """Boundary at which a text may be cut: the characters from start to end belong to neither part."""

    start: int
    end: int
    strength: Strength


LATIN_MARKS = ".!?…‼⁇⁈⁉"
GREEK_QUESTION = ";"
# Chinese and Japanese; Devanagari and its neighbors; Urdu, Arabic, Syriac; Armenian; Hebrew; Ethiopic; Khmer; Burmese;
# Tibetan; Mongolian; Canadian syllabics.
OTHER_MARKS = "。！？｡．।॥۔؟܀܁܂։׃።፧፨។៕၊။།༎᠃᠉᙮"  # noqa: RUF001
CLOSERS = "\"'”’“»«›)\\]」』】》〉）］｝〕"  # noqa: RUF001
OPENERS = "\"'“‘„”’«»‹›([{¿¡「『【《〈（"  # noqa: RUF001
_MARKS = re.escape(LATIN_MARKS + GREEK_QUESTION + OTHER_MARKS)
PLACE = re.compile(rf"(?<![{_MARKS}])[{_MARKS}]++(?:[\xa0\u202f]»)?+[{CLOSERS}]*+(\s*+)|(?<!\s)\s++")
LOOK_BACK, LOOK_AHEAD = 24, 48  # characters

# Thai, Lao, Tibetan, Burmese, Khmer: spaces stand between clauses.
SPACED_CLAUSES = re.compile(r"[\u0e00-\u0fff\u1000-\u109f\u1780-\u17ff]")
GREEK = re.compile(r"[\u0370-\u03ff\u1f00-\u1fff]")
BULLET = re.compile(r"[-*+•‣◦▪·–—]\s|\d{1,3}[.)]\s")
NUMBER_OF_LIST = re.compile(r"(?:^|\n|(?P<mark>[.!?;:])\s)\s*\(?\d{1,3}$")


def _one_of(words: str) -> str:
    """Pattern of one of several words at the end of a text; "·" is a full stop with an optional space after it."""
    patterns = "|".join(re.escape(word).replace("·", r"\.\s?") for word in words.split())
    return rf"(?<![^\W_])(?:{patterns})$"


# No sentence ends with these.
NEVER_LAST = re.compile(
    _one_of(
        """
        e·g eg i·e ie c·f cf cfr vs viz a·k·a w·r·t N·B P·S approx esp incl ca assoc prelim techn orig avg misc z·B d·h
        u·a u·U u·ä s·o s·u i·d·R i·A vgl bzw ggf evtl inkl exkl bspw sog ehem geb insbes einschl entspr zzgl mio mrd
        p·es p·e p·ex p·ej ej ex c·-à-d c·à·d c-à-d env aprox d·w·z o·a b·v bijv evt m·b·t t·o·v np tzn tj m·in např
        tzv t·ex bl·a f·eks dvs esim т·е т·к т·н напр
        """  # noqa: RUF001
    )
    + r"|(?<!\w)(?:ad|per|par)\s+es$",
    re.IGNORECASE,
)
# A sentence that ends with these goes on with a capital letter.
MAY_BE_LAST = re.compile(_one_of("etc ecc usw osv atd enz itd др пр"), re.IGNORECASE)
# A number follows, or something else that has a name.
BEFORE_NUMBER = re.compile(
    _one_of(
        """
        no nos nr nrn n nn num núm art arts fig figs abb tab eq eqs sec sect sez ch chap cap kap par para pp pag pagg
        pág págs pg vol vols bd bde jan feb febr mar apr jun jul aug sep sept oct okt nov dec dez dic gen mag giu lug
        ago set ott ver vers rev rel rif ref pt op max min est tel abs ziff стр рис
        """
    ),
    re.IGNORECASE,
)
# A name follows, or another word of a name; and any letter alone, as of initials and of "U.S.".
BEFORE_NAME = re.compile(
    _one_of(
        """
        mr mrs ms mx dr dra drs prof profs rev hon gov gen col capt cpt lt sgt maj cmdr adm sen rep pres st ste mt ft
        ave av blvd rd hwy messrs mm mme mlle mgr sr sra sras srta dña jr inc ltd corp co bros univ dept dpt assn al
        dott sig sigg ing avv geom rag arch mons dhr mevr hr hrn frl dipl phil med hl str chr jh hrsg op cit ed eds ud
        uds EE·UU ул г-н г-жа
        """  # noqa: RUF001
    )
    + r"|(?<![^\W_])[^\W\d_]$",
    re.IGNORECASE,
)
# After these two a sentence ends if one of these follows, with which sentences begin and no name does.
BEGINNINGS = re.compile(
    r"\W*(?:The|This|These|Those|That|Its?|They|There|Here|He|She|We|You|If|In|On|At|For|From|With|As|An?|And|But|When|"
    r"While|Where|What|Which|How|Who|Why|All|Any|Some|Most|Many|Both|Each|Every|Also|However|Please|Note|See|Use|By|"
    r"Since|After|Before|Once|Only|Unlike|More|Such|Because|Although|Then|Now|Il|Gli|Una?|Quest[oaie]|È|Der|Die|"
    r"Dies(?:e[rs]?)?|Es|Eine?|Sie|Wir|Er|Im|Mit|Für|Und|Cet?|Cette|Ces|Elles?|Ils|Nous|Les|Une|Est[eao]s?|Los|Het|Een|"
    r"Dit|Deze)(?![\w.])"
)
# Too long for an abbreviation: a sentence ends even where the next one begins with a name such as "dpkg".
FULL_WORD = re.compile(r"(?<![^\W_])[^\W\d_]{5,}$")
ORDINAL = re.compile(  # of German dates and names, as in "am 3. Oktober"
    r"(?<!\w)(?:am|vom|zum|im|der|die|das|des|dem|den|bis|ab|seit)\s\d{1,2}$"
)


def breaks(text: str) -> Iterator[Break]:
    """Boundaries between sentences or clauses of a text, in order.

    Args:
        text: any text.

    Yields:
        Boundaries, none at the ends of the text.

    >>> [text[: place.start] for text in ["See e.g. No. 5. It works."] for place in breaks(text)]
    ['See e.g. No. 5.']
    """
    for match in PLACE.finditer(text):
        start = match.start() if match[1] is None else match.start(1)
        if start > 0 and match.end() < len(text) and (strength := _strength(text, match, start)) is not None:
            yield Break(start, match.end(), strength)


def spaces(text: str) -> Iterator[tuple[int, int]]:
    """Spans of white space in a text, except after abbreviations."""
    for match in re.finditer(r"\s+", text):
        start, after = match.start(), text[match.end() : match.end() + LOOK_AHEAD]
        before = text[max(0, start - 1 - LOOK_BACK) : max(0, start - 1)]
        if text[start - 1 : start] != "." or not _is_abbreviation(before, after, _goes_on(after)):
            yield match.span()


def _goes_on(after: str) -> bool:
    """Whether a sentence continues, judged by its next letter."""
    return after.lstrip(OPENERS)[:1].islower()


def _strength(text: str, match: re.Match[str], start: int) -> Strength | None:
    gap, after = text[start : match.end()], text[match.end() : match.end() + LOOK_AHEAD]
    goes_on = _goes_on(after)
    if gap.count("\n") > 1 and not goes_on:
        return Strength.PARAGRAPH
    if "\n" in gap and BULLET.match(after):
        return Strength.SENTENCE
    ends = None if match[1] is None else _end(text, match, gap, after, goes_on)
    if ends is None and ("\n" in gap or (SPACED_CLAUSES.match(text, start - 1) and SPACED_CLAUSES.match(after))):
        return Strength.CLAUSE if match[1] is None else None
    return ends


def _end(text: str, match: re.Match[str], gap: str, after: str, goes_on: bool) -> Strength | None:
    """Strength of the boundary at a punctuation mark and the white space after it; None if there is none."""
    marks = re.match(rf"[{_MARKS}]+", match[0])
    run = marks[0] if marks else ""
    if any(mark in OTHER_MARKS for mark in run):
        within = after[:1] in OTHER_MARKS or (run == "．" and after[:1].isdigit())  # noqa: RUF001
        return None if within else Strength.SENTENCE
    if not gap:
        return None
    before = text[max(0, match.start() - LOOK_BACK) : match.start()]
    if run == GREEK_QUESTION:
        return Strength.SENTENCE if GREEK.match(before[-1:]) else None
    if run == "." and _is_abbreviation(before, after, goes_on):
        return None
    sure = not goes_on or (run == "." and FULL_WORD.search(before))
    return Strength.SENTENCE if sure else Strength.CLAUSE


def _numbers_item(before: str) -> bool:
    """Whether a text ends with the number of a list item, rather than with "Fig. 3"."""
    match = NUMBER_OF_LIST.search(before)
    return match is not None and not (match["mark"] and BEFORE_NUMBER.search(before[: match.start("mark")]))


def _is_abbreviation(before: str, after: str, goes_on: bool) -> bool:
    if NEVER_LAST.search(before) or ORDINAL.search(before) or _numbers_item(before):
        return True
    if MAY_BE_LAST.search(before):
        return goes_on
    numbered = BEFORE_NUMBER.search(before)
    if numbered and re.match(r"\d|[A-Z]\b|[IVX]+\b", after):
        return True
    return bool(numbered or BEFORE_NAME.search(before)) and not BEGINNINGS.match(after)
