"""Attention over a sound: maps of a random model, their page in a browser, PNG, terminal and files."""

import json
import os
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import regard as rg
from regard.errors import CheckpointError, ConfigError, DataError
from regard.lens.sound_maps import SoundMaps, SpokenWord, colors
from tests.audio.sounds import sine, write
from tests.cli.run import error, regard
from tests.lens.browser import Browser, chromium
from tests.tasks.speech_models import write_whisper

RATE, POSITIONS = 16_000, 40  # 0.8 s


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_whisper(tmp_path_factory.mktemp("models") / "whisper")


@pytest.fixture(scope="module")
def tone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(tmp_path_factory.mktemp("sounds") / "tone.wav", sine(0.8, 300.0))


def maps_of_words() -> SoundMaps:
    """Three words of two heads; the second gives times, and its weight is largest at position 10 (i + 1) of word i."""
    attention = np.full((2, 3, POSITIONS), 0.001, np.float32)
    attention[0, :, 3] = 0.5
    for i in range(3):
        attention[1, i, 10 * (i + 1) : 10 * (i + 1) + 2] = (0.6, 0.3)
    words = [SpokenWord(f" <w{i}>", 1 + 0.2 * (i + 1), 1 + 0.2 * (i + 1) + 0.15) for i in range(3)]
    samples = sine(0.8, 300.0).astype(np.float32)
    mels = np.random.default_rng(0).standard_normal((80, 8)).astype(np.float32)
    return SoundMaps(
        name="a <b> & c.wav", samples=samples, rate=RATE, mels=mels, words=words, attention=attention,
        heads=["layer 1, head 1", "layer 1, head 2"], aligned=[1], start=1.0,
    )  # fmt: skip


def test_a_later_window(folder: Path, tmp_path: Path) -> None:
    sound = write(tmp_path / "long.wav", np.concatenate([sine(1.0, 200.0), sine(0.6, 400.0)]))
    maps = rg.load(folder).see(sound, start=1.0)
    assert maps.start == 1.0
    assert maps.seconds == pytest.approx(0.6)
    assert all(1.0 <= word.start <= word.end <= 1.61 for word in maps.words)
    assert maps.note == "shown: 1 to 1.6 s of 1.60 s; --start chooses another stretch"
    assert rg.load(folder).see(sound).note == "shown: 0 to 1 s of 1.60 s; --start chooses another stretch"
    with pytest.raises(ConfigError, match=r"start=1\.6; expected seconds in the sound, from 0 to below 1\.60"):
        rg.load(folder).see(sound, start=1.6)


def test_heads_are_counted_from_one() -> None:
    maps = maps_of_words()
    assert np.array_equal(maps.map(), maps.attention[1])
    assert np.array_equal(maps.map(1), maps.attention[0])
    for wrong in (0, 3, True):
        with pytest.raises(ConfigError, match="expected a number from 1 to 2"):
            maps.map(wrong)


def test_terminal_and_png(tmp_path: Path) -> None:
    maps = maps_of_words()
    lines = maps.terminal().splitlines()
    assert [line.split()[:2] for line in lines] == [["1.20", "1.35"], ["1.40", "1.55"], ["1.60", "1.75"]]
    assert [line[17:].index("\N{FULL BLOCK}") for line in lines] == [10, 20, 30]
    maps.png(tmp_path / "maps.png")
    with Image.open(tmp_path / "maps.png") as picture:
        assert picture.width > 900
    assert colors(np.array([0.0, 1.0])).tolist() == [[0, 34, 78], [254, 232, 56]]


def test_the_page_of_a_long_text_is_small(tmp_path: Path) -> None:
    """24 heads, 90 words and 30 s, with weights around a place, as trained heads have."""
    heads, words, positions = 24, 90, 1500
    places = np.arange(positions) - np.linspace(0, positions, words)[:, None]
    attention = np.broadcast_to(0.1 * np.exp(-np.square(places / 10)), (heads, words, positions)).astype(np.float32)
    maps = replace(
        maps_of_words(), attention=attention, heads=[f"layer 1, head {i + 1}" for i in range(heads)],
        words=[SpokenWord(f" w{i}", i / 3, (i + 1) / 3) for i in range(words)],
    )  # fmt: skip
    maps.page(tmp_path / "page.html")
    assert (tmp_path / "page.html").stat().st_size < attention.size / 10  # a byte a weight, without compression


@pytest.mark.parametrize("name", ["maps.npz", "maps.json"])
def test_saved_and_loaded(name: str, tmp_path: Path) -> None:
    maps = maps_of_words()
    maps.save(tmp_path / name)
    again = SoundMaps.load(tmp_path / name)
    assert (again.words, again.heads, again.aligned, again.start) == (maps.words, maps.heads, maps.aligned, 1.0)
    for field in ("attention", "mels", "samples"):
        np.testing.assert_allclose(getattr(again, field), getattr(maps, field), atol=1e-6)
    if name.endswith("json"):
        text = (tmp_path / name).read_text()
        assert json.loads(text)["seconds"][:3] == pytest.approx([1.0, 1.02, 1.04])
        arrays = text[text.index('"attention"') :]
        assert max(map(len, re.findall(r"[-.\de]+(?=[,\]])", arrays))) <= len("-0.123456")
    (tmp_path / name).write_bytes((tmp_path / name).read_bytes()[:99])
    with pytest.raises(CheckpointError, match="cannot be read as maps of a sound"):
        SoundMaps.load(tmp_path / name)
    with pytest.raises(ConfigError, match=r"must end in \.npz or \.json"):
        maps.save(tmp_path / "maps.txt")


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    executable = chromium()
    if executable is None:
        pytest.skip("no Chromium on this machine: the page cannot be looked at")
    with Browser(executable) as opened:
        yield opened


def show(browser: Browser, maps: SoundMaps, folder: Path, *, width: int = 360, dark: bool = False) -> None:
    maps.page(folder / "page.html")
    browser.call("Emulation.setDeviceMetricsOverride", width=width, height=800, deviceScaleFactor=1, mobile=False)
    features = {"prefers-color-scheme": "dark" if dark else "light", "prefers-reduced-motion": "reduce"}
    browser.call("Emulation.setEmulatedMedia", features=[{"name": x, "value": y} for x, y in features.items()])
    browser.events.clear()
    browser.call("Page.navigate", url=(folder / "page.html").resolve().as_uri())
    browser.wait("document.querySelectorAll('#rows tr').length > 0 && document.getElementById('audio').duration > 0")


def status(browser: Browser) -> str:
    return str(browser.run("document.getElementById('status').textContent"))


def box(browser: Browser, name: str) -> tuple[float, float, float]:
    """Left, width and top of an element."""
    place = f"document.getElementById('{name}').getBoundingClientRect()"
    left, width, top = browser.run(f"(b => [b.left, b.width, b.top])({place})")
    return left, width, top


def test_words_spectrogram_and_sound_line_up(browser: Browser, tmp_path: Path) -> None:
    show(browser, maps_of_words(), tmp_path)
    assert browser.run("document.getElementById('audio').duration") == pytest.approx(0.8, abs=0.01)
    # The second word by the keyboard alone: the span, the largest weight and the sound are at its time.
    browser.run("document.querySelector('#words button').focus()")
    browser.press("ArrowRight")
    assert browser.run("document.activeElement.textContent") == "<w1>"
    browser.run("document.querySelector('#words button').dispatchEvent(new MouseEvent('mouseenter'))")
    browser.press("ArrowRight", "ArrowLeft")  # from the word that has the focus, wherever the pointer is
    assert browser.run("document.activeElement.textContent") == "<w1>"
    assert "1.40 to 1.55 s: largest weight 0.60 at 1.41 s" in status(browser)
    span, whole = box(browser, "span"), box(browser, "sound")
    assert (span[0] - whole[0]) / whole[1] == pytest.approx(0.4 / 0.8, abs=0.02)
    assert span[1] / whole[1] == pytest.approx(0.15 / 0.8, abs=0.02)
    browser.run("document.activeElement.click()")
    assert browser.run("document.getElementById('audio').currentTime") == pytest.approx(0.4, abs=0.02)
    # The pointer over the time of the third word tints that word only.
    browser.move(whole[0] + whole[1] * (0.61 / 0.8), whole[2] + 20)
    tints = browser.run(
        "[...document.querySelectorAll('#words button')].map(b => +b.style.getPropertyValue('--weight'))"
    )
    assert tints[2] > 0.5 > 0.1 > max(tints[:2])
    browser.run("const s = document.getElementById('head'); s.value = 0; s.dispatchEvent(new Event('change'))")
    assert "at 1.07 s" in status(browser)
    assert browser.errors() == []


def test_the_bars_stand_where_the_weights_are(browser: Browser, tmp_path: Path) -> None:
    """Of each word, the columns of the canvas that are drawn to half its height are those of its largest weight."""
    maps = maps_of_words()
    show(browser, maps, tmp_path, width=900)
    tall = """(canvas => {
      const {data, width, height} = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height);
      const row = Math.round(height * 0.4);
      return [...Array(width).keys()].filter(x => data[4 * (row * width + x) + 3] > 127).map(x => (x + 0.5) / width);
    })(document.getElementById("weights"))"""
    for word, weights in enumerate(maps.map()):
        browser.run(f"document.querySelectorAll('#words button')[{word}].dispatchEvent(new MouseEvent('mouseenter'))")
        columns, place = browser.run(tall), int(weights.argmax())
        assert columns
        assert {int(x * POSITIONS) for x in columns} == {place}


def test_the_page_has_the_weights(browser: Browser, tmp_path: Path) -> None:
    generator = np.random.default_rng(0)
    maps = replace(maps_of_words(), attention=generator.random((2, 3, POSITIONS)).astype(np.float32), aligned=[0, 1])
    show(browser, maps, tmp_path)
    step = maps.attention.max(2, keepdims=True) / 255
    for head in range(2):
        shown = np.array(browser.run(f"weightsOf({head}).map(row => [...row])"))
        assert (np.abs(shown - maps.attention[head]) <= step[head] / 2 + 1e-6).all()
    mean = np.array(browser.run("weightsOf(MEAN).map(row => [...row])"))
    assert (np.abs(mean - maps.map()) <= step.mean(0) / 2 + 1e-6).all()
    names = browser.run("[...document.querySelectorAll('#head option')].map(x => x.textContent)")
    assert names == ["mean of the 2 heads that give words their times", *(f"{x} (gives times)" for x in maps.heads)]


def test_it_plays_and_seeks_by_keyboard(browser: Browser, tmp_path: Path) -> None:
    show(browser, maps_of_words(), tmp_path)
    audio = "document.getElementById('audio')"
    stops = []
    for _ in range(12):
        browser.press("Tab")
        stops.append(browser.run("document.activeElement.id || document.activeElement.tagName"))
    assert [x for x in dict.fromkeys(stops) if x in ("audio", "head", "sound", "BUTTON", "SUMMARY")] == [
        "audio", "head", "sound", "BUTTON", "SUMMARY",
    ]  # fmt: skip
    browser.run("document.getElementById('sound').focus()")
    browser.press("ArrowRight", "ArrowRight")
    assert browser.run(f"{audio}.currentTime") == pytest.approx(0.2, abs=0.01)
    slider = "document.getElementById('sound').getAttribute('aria-valuetext')"
    assert browser.run(slider) == "1.20 seconds"
    browser.run(f"globalThis.played = 0; {audio}.addEventListener('play', () => played++)")
    browser.press(" ")
    browser.wait("played === 1")
    browser.run(f"{audio}.pause()")
    # the word that is being said
    browser.run(f"Object.defineProperty({audio}, 'paused', {{get: () => false}}); {audio}.currentTime = 0.45; tint()")
    assert browser.run("document.querySelector('#words .now').textContent") == "<w1>"
    assert browser.errors() == []


def test_a_longer_sound_is_named(browser: Browser, tmp_path: Path) -> None:
    show(browser, replace(maps_of_words(), total=7.25), tmp_path)
    note = "(x => [x.hidden, x.textContent])(document.getElementById('note'))"
    assert browser.run(note) == [False, "shown: 1 to 1.8 s of 7.25 s; --start chooses another stretch"]
    show(browser, replace(maps_of_words(), start=0.0, total=0.8), tmp_path)
    assert browser.run(note)[0] is True


@pytest.mark.parametrize(("width", "dark"), [(1280, False), (1280, True), (360, False), (360, True)])
def test_it_fits_and_axe_finds_nothing(width: int, dark: bool, browser: Browser, tmp_path: Path) -> None:
    text = replace(maps_of_words(), total=7.25)
    show(browser, text, tmp_path, width=width, dark=dark)
    assert browser.run("document.documentElement.scrollWidth") == width
    page = (tmp_path / "page.html").read_text()
    assert "http:" not in page
    assert "https:" not in page
    path = os.environ.get("REGARD_AXE")
    if path is None:
        pytest.skip("REGARD_AXE is not set: `npm pack axe-core`, unpack it, and set it to the path of axe.min.js")
    browser.run(Path(path).read_text(encoding="utf-8") + "; document.querySelector('details').open = true; 0")
    assert browser.run("axe.run().then(result => result.violations.map(x => `${x.id}: ${x.nodes[0].html}`))") == []


def test_the_command(folder: Path, tone: Path, tmp_path: Path) -> None:
    html, npz = tmp_path / "heard.html", tmp_path / "heard.npz"
    result = regard("see", str(tone), "--model", str(folder), "--html", str(html), "--npz", str(npz))
    assert result.exit_code == 0
    assert result.stdout.splitlines()[-1] == rg.load(folder).see(tone).text
    assert SoundMaps.load(npz).heads[0] == "layer 1, head 1"
    assert "data:audio/flac" in html.read_text()
    model = ("--model", str(folder))
    assert "the model has no layer 9, head 1" in error("see", str(tone), *model, "--layer", "9", "--head", "1")
    assert "give --layer and --head together" in error("see", str(tone), *model, "--layer", "1")
    assert "--svg is not for sounds" in error("see", str(tone), *model, "--svg", str(tmp_path / "a.svg"))
    assert "--start is for sounds" in error("see", "a text", "--start", "1")
    assert "is a sound, and the model" in error("see", str(tone), code=1)
    assert "--kind is not for sounds without --grid" in error("see", str(tone), *model, "--kind", "encoder")
    result = regard("see", str(write(tmp_path / "long.wav", sine(1.6))), *model)
    assert result.exit_code == 0
    assert "shown: 0 to 1 s of 1.60 s; --start chooses another stretch" in result.stderr


HOSTILE = {
    "silent.wav": (np.zeros(RATE, np.float32), "is silent from 0 to 1 s: below -60 dB of full scale"),
    "empty.wav": (np.zeros(0, np.float32), "has no samples; expected at least 0.025 s"),
    "nothing.wav": (b"", "is empty; expected a sound file"),
    "text.wav": (b"no sound", "is no sound file, or damaged"),
    "damaged.ogg": (b"OggS" + bytes(range(200)), "is no sound file, or damaged"),
}


@pytest.mark.parametrize("name", HOSTILE)
@pytest.mark.parametrize("more", [(), ("--grid", "8")])
def test_what_cannot_be_seen_is_one_line(name: str, more: tuple[str, ...], folder: Path, tmp_path: Path) -> None:
    content, message = HOSTILE[name]
    file = tmp_path / name
    if isinstance(content, bytes):
        file.write_bytes(content)
    else:
        write(file, content)
    said = error("see", str(file), "--model", str(folder), *more, "--html", str(tmp_path / "page.html"), code=1)
    assert said.startswith(f"{file} {message}")
    assert "\n" not in said
    assert not (tmp_path / "page.html").exists()


def test_a_sound_without_words(folder: Path) -> None:
    model = rg.load(folder)
    [newline] = model.tokenizer.encode("\n")
    with torch.no_grad():  # a new line is always the most probable token
        model.module.embedding.weight.zero_()
        model.module.decoder_norm.bias.fill_(1.0)
        model.module.decoder_norm.weight.zero_()
        model.module.embedding.weight[newline] = 1.0
    with pytest.raises(DataError, match="no words were recognized"):
        model.see((sine(0.8, 300.0).astype(np.float32), RATE))
