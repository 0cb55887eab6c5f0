"""Where sentences end: "|" stands where one does, "~" where a clause may, "¶" after a paragraph."""

# ruff: noqa: RUF001

import pytest
from hypothesis import given
from hypothesis import strategies as st

from regard.tasks.sentences import Strength, breaks, spaces

SIGNS = {Strength.CLAUSE: "~", Strength.SENTENCE: "|", Strength.PARAGRAPH: "¶"}


def shown(text: str) -> str:
    """The text with signs in place of what stands between its parts."""
    parts, last = [], 0
    for place in breaks(text):
        parts += [text[last : place.start], SIGNS[place.strength]]
        last = place.end
    return "".join([*parts, text[last:]])


@pytest.mark.parametrize(
    "expected",
    [
        "One two.|Three?|Four!|Five...|Six",
        'He said "no."|(She left.)|Then “what?”|So',
        "It reads PNG, e.g. Foo, i.e. Bar, vs. Baz, cf. Qux etc. and others.|It works.",
        "Written by Dr. Smith, Prof. Jones and J. R. R. Brown of the St. Louis office of the U.S. Department.|Good.",
        "No. 4 of vol. 3, pp. 5, Fig. 3 and Sec. B on Jan. 5.|He said no.|The next",
        "Acme Inc. Holdings and Acme Inc.|The firm.",
        "It is written in C.|The rest is in R.|It is fast.",
        "Version 1.5.2 is out.|See 3.14 and v2.0.|Done",
        "1. First do this.|2. Then that.|See Fig. 3.|It shows",
        "Wait...~and go.|Wait...|Go",
        "z. B. Häuser, d.h. Hütten, ca. Hälfte, bzw. Ställe am 3. Oktober.|Das ist Nr. 5.|Gut",
        "Il sig. Rossi, il dott. Bianchi, p. es. Roma, ad es. Pisa, ecc. e altro.|Fine.|Art. 5 e pag. 7.|Poi",
        "M. Dupont, c.-à-d. Paul, p. ex. Jean «\xa0dit\xa0».|Puis",
        "El Sr. García y la Sra. Pérez, p. ej. Juan.|¿Qué?|¡Hola!|Fin",
        "И т. д. Потом г. Москва.|Он",
        "यह है।|फिर यह॥|और",
        "یہ ہے۔|کیا؟|ہاں",
        "Այս ֆայլ։|Այն ֆայլ",
        "ሰላም።|ደህና",
        "សួស្តី។|ចា",
        "မင်္ဂလာပါ။|ဟုတ်",
        "Τι κάνεις;|Καλά.|Ναι",
        "สวัสดี~ครับ",
    ],
)
def test_ends_with_space_after_them(expected: str) -> None:
    text = expected.replace("|", " ").replace("~", " ")
    assert shown(text) == expected


@pytest.mark.parametrize(
    "expected", ["你好。|他说「好！」|再见", "はい。|いいえ", "यह है।|फिर", "کیا۔|ہاں", "３．５です。|次"]
)
def test_ends_without_space(expected: str) -> None:
    assert shown(expected.replace("|", "")) == expected


def test_the_same_whatever_the_space() -> None:
    for space in ("\xa0", "\u2009", "\u3000", "\t", "  "):
        assert shown(f"Dr.{space}Smith works.{space}He{space}is") == f"Dr.{space}Smith works.|He{space}is"


def test_ends_of_lines() -> None:
    assert shown("a line\nthat goes on\nAnd on") == "a line~that goes on~And on"
    assert shown("It has:\n - one\n * two\n 3. three") == "It has:|- one|* two|3. three"
    assert shown("A heading\n\nA text.\n\nAnother") == "A heading¶A text.¶Another"
    assert shown("broken off\n\nin a sentence") == "broken off~in a sentence"
    assert shown("It ends.\nIt begins") == "It ends.|It begins"


def test_a_small_name_begins_a_sentence_after_a_word_that_is_no_abbreviation() -> None:
    assert shown("It is an archive. dpkg reads it. apt too") == "It is an archive.|dpkg reads it.~apt too"
    assert shown("Er kommt insbes. morgens. Dann") == "Er kommt insbes. morgens.|Dann"


def test_spaces_after_abbreviations_are_none_to_cut_at() -> None:
    text = "see e.g. foo and Dr. No"
    assert [text[:start] for start, _ in spaces(text)] == ["see", "see e.g. foo", "see e.g. foo and"]


@given(st.text(alphabet="abC .!?\n\"')»。।۔\xa0\u2009-1", max_size=60))
def test_places_stand_in_order_within_the_text(text: str) -> None:
    last = 0
    for place in breaks(text):
        assert last < place.start <= place.end < len(text)
        assert not text[place.start : place.end].strip()
        last = place.end
