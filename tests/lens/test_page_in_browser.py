"""The page in a browser: what readers see, by pointer, by keyboard alone and by screen reader.

These tests need Chromium, and skip without it. Those of accessibility need axe-core besides: unpack `npm pack axe-core`
and set REGARD_AXE to the path of its axe.min.js.
"""

import os
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from regard.lens import files
from regard.lens.alignment import END, Alignment
from regard.lens.page import page
from regard.lens.view import Attribution, Axis, LayerView, View
from tests.lens.browser import Browser, chromium
from tests.lens.models import alignment
from tests.lens.test_page import long_view

WORDS = ["[CLS]", "the", "river", "bank", "was", "closed", "[SEP]"]
HEBREW = ["הספר", "הזה", "מכיל", "תיעוד"]
AXE = "REGARD_AXE"


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    executable = chromium()
    if executable is None:
        pytest.skip("no Chromium on this machine: the page cannot be looked at")
    with Browser(executable) as opened:
        yield opened


def view() -> View:
    """Two layers of three heads by hand: each word attends to the one before by 0.6 in head 1, by 0.2 in others."""
    length = len(WORDS)
    layers = []
    for layer in range(2):
        grid = torch.zeros(3, length, length)
        for head, share in enumerate((0.6, 0.2, 0.2)):
            grid[head] = torch.eye(length) * (1 - share) + torch.eye(length).roll(-1, 1) * share
        grid[2] = 0.1 * torch.eye(length)
        grid[2, :, 0] += 0.9  # a sink
        layers.append(
            LayerView(
                path=f"layer.{layer}", rows="text", columns="text", grid=grid, row_edges=range(length + 1),
                column_edges=range(length + 1), entropy=torch.full((3, length), 1.25), key_mass=grid.sum(1), error=2e-7,
            )
        )  # fmt: skip
    axes = {"text": Axis(name="text", labels=WORDS, special=frozenset({0, length - 1}))}
    scores = torch.tensor([0, 0.1, 0.9, 0.3, -0.2, 0, 0])
    explained = Attribution(
        method="rollout", axis="text", scores=scores, target="water",
        trust={"comprehensiveness": 0.5, "random comprehensiveness": 0.1},
    )  # fmt: skip
    return View(title="A river bank", axes=axes, layers=layers, attributions=[explained], notes=["gate: left out"])


def show(browser: Browser, shown: View | Alignment, folder: Path, **window: bool | int) -> None:
    (folder / "page.html").write_text(page(shown), encoding="utf-8")
    browser.open(folder / "page.html", **window)


def text(browser: Browser, selector: str) -> str:
    return str(browser.run(f"document.querySelector(`{selector}`).innerText"))


def click(browser: Browser, selector: str) -> None:
    browser.run(f"document.querySelector(`{selector}`).click()")


def point_at(browser: Browser, selector: str) -> None:
    box = f"document.querySelector(`{selector}`).getBoundingClientRect()"
    browser.move(*browser.run(f"(box => [box.x + box.width / 2, box.y + box.height / 2])({box})"))


def test_pointing_at_a_word_colors_what_belongs_to_it(browser: Browser, tmp_path: Path) -> None:
    show(browser, view(), tmp_path)
    assert text(browser, "h1") == "A river bank"
    assert text(browser, "#about") == "2 layers × 3 heads · 7 places"
    assert browser.run("document.querySelectorAll('.thumbnail').length") == 3 * 4  # with the means
    click(browser, "[aria-label='layer 2, head 1']")
    assert text(browser, "#head-name") == "Layer 2, head 1"
    assert "mean entropy\n1.25 nats" in text(browser, "#facts")
    point_at(browser, "#rows-3")
    assert text(browser, "#reading") == (
        "bank attends to river 60%, bank 40%. 70% of the weight is on 2 of 7. bank is attended to by was 60%, bank 40%."
    )
    colors = browser.run("[...document.querySelectorAll('#columns-words .word')].map(word => word.style.background)")
    assert [bool(color) for color in colors] == [word in ("river", "bank") for word in WORDS]
    marked = browser.run("[...document.querySelectorAll('.marked')].map(word => word.textContent)")
    assert marked == ["river", "bank"]
    assert browser.run("document.querySelectorAll('#rows-words .current, #columns-words .current').length") == 2
    assert "gate: left out" in text(browser, "#notes")
    assert browser.errors() == []


def test_colors_have_one_scale(browser: Browser, tmp_path: Path) -> None:
    show(browser, view(), tmp_path)
    assert text(browser, "#ticks").split() == ["0", "1", "10", "25", "50", "100%"]
    color = "getComputedStyle(document.querySelector('#columns-2')).backgroundColor"
    for head, weight in ((1, 0.6), (2, 0.2)):
        click(browser, f"[aria-label='layer 1, head {head}']")
        point_at(browser, "#rows-3")
        assert browser.run(color) == browser.run(f"palette.css[levelOf({weight})]").replace(" ", ", ")
    blue = browser.run(color)
    browser.run("at('colors').value = 'cividis', at('colors').dispatchEvent(new Event('change'))")
    assert browser.run(color) not in (blue, "rgba(0, 0, 0, 0)")


def test_sinks_are_named_and_set_aside_and_special_tokens_hidden(browser: Browser, tmp_path: Path) -> None:
    show(browser, view(), tmp_path)
    click(browser, "[aria-label='layer 1, head 3']")
    assert "sink\n[CLS], place 1: 91% of all weight" in text(browser, "#facts")
    click(browser, "#sinks")
    point_at(browser, "#rows-3")
    assert text(browser, "#reading").startswith("bank attends to bank 100%. 70% of the weight is on 1 of 6.")
    assert browser.run("at('rest').hidden") is False
    click(browser, "#sinks")
    click(browser, "#special")
    click(browser, "#as-table")
    header = browser.run("[...document.querySelectorAll('.weights thead th')].map(cell => cell.textContent)")
    assert header == ["text ↓ text →", *WORDS[1:-1]]
    cells = browser.run("[...document.querySelectorAll('.weights tbody tr:nth-child(2) td')].map(x => x.textContent)")
    assert cells == ["0.0", "100.0", "0.0", "0.0", "0.0"]


def test_attributions_stand_beside_their_faithfulness(browser: Browser, tmp_path: Path) -> None:
    show(browser, view(), tmp_path)
    assert text(browser, "#attributed h3") == "rollout, for water"
    assert "comprehensiveness\n0.500 (random scores: 0.100)" in text(browser, "#attributed .facts")
    colors = browser.run("[...document.querySelectorAll('#attributed .word')].map(word => word.style.background)")
    assert [bool(color) for color in colors] == [False, True, True, True, False, False, False]


def test_by_keyboard_alone(browser: Browser, tmp_path: Path) -> None:
    show(browser, view(), tmp_path)
    stops = []
    for _ in range(16):
        browser.press("Tab")
        stops.append(browser.run("(x => x.id || x.className || x.tagName)(document.activeElement)"))
    for stop in ("layer", "colors", "special", "file", "thumbnail", "words", "canvas", "SUMMARY"):
        assert stop in stops, stops
    active = "document.activeElement.ariaLabel"
    browser.open(tmp_path / "page.html")
    while browser.run("document.activeElement.className") != "thumbnail":
        browser.press("Tab")
    assert browser.run(active) == "mean of 2 layers, mean of 3 heads"
    browser.press("ArrowDown", "ArrowRight", "ArrowRight")
    assert browser.run(active) == "layer 1, head 2"
    assert text(browser, "#head-name") == "Layer 1, head 2"
    browser.press("Tab", "ArrowRight", "ArrowRight")
    assert text(browser, "#reading").startswith("river attends to river 80%, the 20%.")
    browser.press("Enter", "Tab", "Tab")
    assert browser.run("document.activeElement.className") == "canvas"
    browser.press("ArrowDown", "ArrowDown", "ArrowRight")
    assert text(browser, "#reading") == "river attends to the with weight 20%."
    browser.press("Escape")
    assert text(browser, "#reading").startswith("Point at a word")
    assert browser.errors() == []


def test_long_texts_are_bins_with_exact_weights(browser: Browser, tmp_path: Path) -> None:
    shown = long_view(3000, 50, layers=2, heads=2, top=3)
    layer = shown.layers[1]
    layer.top_keys[0, 7], layer.top_weights[0, 7] = torch.tensor([1234, 5, 6]), torch.tensor([0.5, 0.25, 0.0])
    show(browser, shown, tmp_path)
    assert text(browser, "#about") == "2 layers × 2 heads · 3,000 places · in bins of 60"
    click(browser, "[aria-label='layer 2, head 1']")
    point_at(browser, "#rows-7")
    assert "word attends to word (place 1,235) 50%, word (place 6) 25%; its bin to" in text(browser, "#reading")
    assert text(browser, "#rows-words .turn span") == "1 to 960 of 3,000"
    click(browser, "#columns-words .turn button:last-child")
    assert browser.run("document.querySelector('#columns-1234').style.background") != ""
    assert browser.errors() == []


def choose(browser: Browser, selector: str, value: str) -> None:
    browser.run(
        f"(x => {{ x.value = '{value}'; x.dispatchEvent(new Event('change')) }})(document.querySelector('{selector}'))"
    )


def test_texts_and_kinds_of_attention(browser: Browser, tmp_path: Path) -> None:
    several = [alignment("this is", "questo è qui"), alignment("a b c", "x y")]
    (tmp_path / "page.html").write_text(page(several, title="Two texts"), encoding="utf-8")
    browser.open(tmp_path / "page.html")
    assert text(browser, "#about") == "2 layers × 3 heads · 4 × 3 places"
    point_at(browser, "#rows-1")
    weights = several[0].map("cross").weights[1]
    word = several[0].source[int(weights.argmax())]
    assert text(browser, "#reading").startswith(f"è attends to {word} {100 * float(weights.max()):.0f}%")
    choose(browser, "#kind", "target to itself")
    assert text(browser, "#columns-words").split() == ["[start]", "questo", "è", "qui"]
    choose(browser, "#text", "1")
    assert text(browser, "#columns-words").split() == ["[start]", "x", "y"]
    assert text(browser, "#head-name") == "Mean of 2 layers, mean of 3 heads"
    choose(browser, "#head", "2")
    choose(browser, "#layer", "1")
    assert text(browser, "#head-name") == "Layer 2, head 3"
    assert browser.run("document.querySelector('[aria-pressed=true]').ariaLabel") == "layer 2, head 3"


def test_a_panel_is_one_function(browser: Browser, tmp_path: Path) -> None:
    """Of axes that are no words: what a panel is called with, and what it is asked to paint."""
    seen = view()
    axes = {"text": replace(seen.axes["text"], kind="bars")}
    show(browser, replace(seen, axes=axes), tmp_path)  # without such a panel they are shown as words
    assert text(browser, "#rows-words").split() == WORDS
    browser.run("""panels.bars = (root, axis, edges, {id, point, hold}) => {
      globalThis.bars ??= {};
      root.textContent = axis.labels.length + " bars";
      bars[id] = {point, hold};
      return {paint(painting) { bars[id].painting = painting }, show() {}};
    }; openView()""")
    click(browser, "[aria-label='layer 1, head 1']")
    assert text(browser, "#rows-words") == "7 bars"
    browser.run("bars.rows.point(3)")
    assert text(browser, "#reading").startswith("bank attends to river 60%")
    assert browser.run("[1, 2, 3].map(bars.columns.painting.bin)") == pytest.approx([0, 0.6, 0.4], abs=1e-4)
    assert browser.run("[...bars.columns.painting.marked]") == [2, 3]


def test_words_from_right_to_left(browser: Browser, tmp_path: Path) -> None:
    words = [*HEBREW, END]
    weights = {"encoder.0.self_attention": torch.rand(2, len(words), len(words)).softmax(-1)}
    show(browser, Alignment(source=words, target=[], weights=weights), tmp_path)
    places = [browser.run(f"document.querySelector('#rows-{i}').getBoundingClientRect().x") for i in range(4)]
    assert places == sorted(places, reverse=True)
    browser.run("document.querySelector('#rows-words .words').focus()")
    browser.press("ArrowLeft")
    assert text(browser, "#reading").startswith(HEBREW[1])
    click(browser, "#as-table")
    assert browser.run("document.querySelector('.weights').dir") == "rtl"


@pytest.mark.parametrize("suffix", [".npz", ".json"])
def test_saved_views_are_opened(suffix: str, browser: Browser, tmp_path: Path) -> None:
    show(browser, long_view(30, 10, layers=1, heads=1, top=1), tmp_path)
    files.save(view(), tmp_path / f"saved{suffix}")
    browser.set_files("#file", tmp_path / f"saved{suffix}")
    browser.wait("document.querySelector('h1').innerText === 'A river bank'")
    assert text(browser, "#about") == "2 layers × 3 heads · 7 places"
    click(browser, "[aria-label='layer 1, head 1']")
    point_at(browser, "#rows-2")
    assert text(browser, "#reading").startswith("river attends to the 60%, river 40%.")
    (tmp_path / "broken.npz").write_bytes(b"PK and nothing else")
    browser.set_files("#file", tmp_path / "broken.npz")
    browser.wait("document.querySelector('#status').innerText.startsWith('broken.npz holds no view of attention')")


def test_a_page_gives_its_view_back(browser: Browser, tmp_path: Path) -> None:
    show(browser, view(), tmp_path)
    browser.call("Page.setDownloadBehavior", behavior="allow", downloadPath=str(tmp_path))
    click(browser, "#save")
    saved, end = tmp_path / "attention.npz", time.monotonic() + 30
    while not saved.exists() and time.monotonic() < end:  # it gets this name once it is whole
        time.sleep(0.02)
    again = files.load(saved)
    assert [layer.path for layer in again.layers] == ["layer.0", "layer.1"]
    torch.testing.assert_close(again.layers[1].grid, view().layers[1].grid, atol=1e-5, rtol=0)
    assert again.attributions[0].trust["comprehensiveness"] == 0.5


WINDOWS = {
    "light": {}, "dark": {"dark": True}, "360 pixels": {"width": 360}, "360 pixels, dark": {"width": 360, "dark": True},
}  # fmt: skip


@pytest.mark.parametrize("window", WINDOWS)
def test_nothing_is_wider_than_the_window(window: str, browser: Browser, tmp_path: Path) -> None:
    shown = long_view(200, 50, layers=12, heads=16, top=1)
    show(browser, shown, tmp_path, **WINDOWS[window])
    browser.run("document.querySelector('details').open = true")
    assert browser.run("document.documentElement.scrollWidth <= innerWidth")
    click(browser, "#as-table")
    assert browser.run("document.documentElement.scrollWidth <= innerWidth")


@pytest.mark.parametrize("window", WINDOWS)
def test_axe_finds_nothing(window: str, browser: Browser, tmp_path: Path) -> None:
    path = os.environ.get(AXE)
    if path is None:
        pytest.skip(f"{AXE} is not set: `npm pack axe-core`, unpack it, and set it to the path of axe.min.js")
    hebrew = Alignment(source=HEBREW, target=[], weights={"encoder.0.self_attention": torch.rand(2, 4, 4).softmax(-1)})
    run = "axe.run().then(result => [result.violations.map(x => `${x.id}: ${x.nodes[0].html}`), result.passes.length])"
    for shown in (view(), hebrew):
        show(browser, shown, tmp_path, **WINDOWS[window])
        browser.run(Path(path).read_text(encoding="utf-8") + "; 0")
        browser.run("document.querySelector('details').open = true")
        for state in ("0", "document.querySelector('#rows-2').click()", "at('as-table').click()"):
            browser.run(state)
            violations, passes = browser.run(run)
            assert violations == []
            assert passes > 20
    browser.run("document.documentElement.lang = ''")
    assert browser.run(run)[0] != []  # it can fail
