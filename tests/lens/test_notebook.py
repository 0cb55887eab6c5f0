"""An alignment in a notebook is a small table of its words, whatever they are."""

from html.parser import HTMLParser

import torch

from regard.lens.alignment import Alignment
from tests.lens.models import alignment

HOSTILE = "<script>alert(123)</script> & \"' \x1b[2J"


class Page(HTMLParser):
    """The tags of a page, its texts, and the cells of its table."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.texts: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)

    def handle_data(self, data: str) -> None:
        self.texts.append(data)


def toy(source: list[str], target: list[str], weights: torch.Tensor) -> Alignment:
    return Alignment(source=source, target=target, weights={"cross_attention": weights})


def test_words_and_weights() -> None:
    weights = torch.tensor([[[0.9, 0.04, 0.06], [0.25, 0.25, 0.5]]])
    html = toy(["one", "two", "[end]"], ["uno", "[end]"], weights)._repr_html_()
    page = Page(html)
    assert page.tags == {"style", "table", "caption", "thead", "tbody", "tr", "th", "td"}
    shown = [text for text in page.texts if text.strip()][1:]  # behind the style
    assert shown == [
        "Attention of target to source: target down, source across, in percent",
        *("one", "two", "[end]"),
        *("uno", "90", "6"),  # 4 % is too little to be written
        *("[end]", "25", "25", "50"),
    ]
    assert "rgba(19,90,158,1.00);color:#fff" in html
    assert "rgba(19,90,158,0.04)" in html


def test_it_is_offline_and_nothing_is_taken_for_markup() -> None:
    html = toy([HOSTILE, "[end]"], ["x", "[end]"], torch.full((1, 2, 2), 0.5))._repr_html_()
    page = Page(html)
    assert "script" not in page.tags
    assert "http" not in html
    assert "\x1b" not in html
    assert "<script>alert(123)</scr…" in page.texts


def test_it_is_small() -> None:
    words = [f"w{i}" for i in range(211)]
    html = toy(words, words[:97], torch.full((1, 97, 211), 1 / 211))._repr_html_()
    assert len(html) < 100_000
    assert html.count("<td ") == 40 * 40
    assert "the first 40 of 97 by 40 of 211 words" in html


def test_an_alignment_is_its_first_map() -> None:
    seen = alignment("a b c", "x y")
    assert seen._repr_html_() == seen.map("cross")._repr_html_()
    assert Alignment(source=["a"], target=[], weights={})._repr_html_() is None


def test_it_prints_readably() -> None:
    seen = toy(["a", "\x1bb", "[end]"], ["x", "[end]"], torch.zeros(1, 2, 3))
    assert repr(seen) == "Alignment('a �b [end]' -> 'x [end]', cross: 1 layer)"
    assert repr(Alignment(source=["a"], target=[], weights={})) == "Alignment('a', no attention)"
    assert len(repr(toy(["word"] * 999, ["x"], torch.zeros(1, 1, 999)))) < 200
