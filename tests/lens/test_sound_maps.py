"""Attention over a sound: maps of a random model, their page in a browser, PNG, terminal and files."""

import json
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


def test_weights_are_those_of_the_model(folder: Path, tone: Path) -> None:
    model = rg.load(folder)
    maps = model.see(tone)
    [transcript] = model.transcribe([str(tone)], words=True, timestamps=False)
    times = [(word.text, word.start, word.end) for segment in transcript.segments for word in segment.words]
    assert [word.text for word in maps.words] == [text for text, _, _ in times]
    for word, (_, start, end) in zip(maps.words, times, strict=True):
        assert (word.start, word.end) == pytest.approx((start, end), abs=1e-3)
    assert maps.heads == ["layer 1, head 1", "layer 1, head 2", "layer 2, head 1", "layer 2, head 2"]
    assert maps.attention.shape == (4, len(times), POSITIONS)
    special = model.tokens
    tokens = [token for segment in transcript.segments for token in segment.tokens]
    prompt = special.prompt(language=transcript.language, task="transcribe", times=False)
    with torch.no_grad(), rg.record(model.module, weights=True) as recording:
        inputs = model.processor(sine(0.8, 300.0).astype(np.float32))[None]
        model.module(inputs, None, torch.tensor([[*prompt, *tokens]]))
    weights = recording["decoder.1.cross_attention"].weights[0, :, len(prompt) - 1 : -1, :POSITIONS]
    total = sum(row.sum() for row in maps.attention[2:])
    assert total / len(times) == pytest.approx(float(weights.sum()) / weights.shape[1], rel=0.2)
    if len(times) == len(tokens):
        np.testing.assert_allclose(maps.attention[2:], weights.numpy(), atol=1e-4)


def test_a_later_window(folder: Path, tmp_path: Path) -> None:
    sound = write(tmp_path / "long.wav", np.concatenate([sine(1.0, 200.0), sine(0.6, 400.0)]))
    maps = rg.load(folder).see(sound, start=1.0)
    assert maps.start == 1.0
    assert maps.seconds == pytest.approx(0.6)
    assert all(1.0 <= word.start <= word.end <= 1.61 for word in maps.words)
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


@pytest.mark.parametrize("name", ["maps.npz", "maps.json"])
def test_saved_and_loaded(name: str, tmp_path: Path) -> None:
    maps = maps_of_words()
    maps.save(tmp_path / name)
    again = SoundMaps.load(tmp_path / name)
    assert (again.words, again.heads, again.aligned, again.start) == (maps.words, maps.heads, maps.aligned, 1.0)
    for field in ("attention", "mels", "samples"):
        np.testing.assert_allclose(getattr(again, field), getattr(maps, field), atol=1e-6)
    if name.endswith("json"):
        assert json.loads((tmp_path / name).read_text())["seconds"][:3] == pytest.approx([1.0, 1.02, 1.04])
    (tmp_path / name).write_bytes((tmp_path / name).read_bytes()[:99])
    with pytest.raises(CheckpointError, match="cannot be read as maps of a sound"):
        SoundMaps.load(tmp_path / name)
    with pytest.raises(ConfigError, match=r"must end in \.npz or \.json"):
        maps.save(tmp_path / "maps.txt")


@pytest.mark.skipif(chromium() is None, reason="no Chromium on this machine")
def test_words_spectrogram_and_sound_line_up(tmp_path: Path) -> None:
    maps_of_words().page(tmp_path / "page.html")
    text = (tmp_path / "page.html").read_text()
    assert "http:" not in text
    assert "https:" not in text
    with Browser(chromium()) as browser:
        browser.call("Emulation.setDeviceMetricsOverride", width=360, height=800, deviceScaleFactor=1, mobile=False)
        browser.call("Page.navigate", url=(tmp_path / "page.html").resolve().as_uri())
        browser.wait("document.querySelectorAll('#rows tr').length === 3")
        browser.wait("document.getElementById('audio').duration > 0")
        assert browser.run("document.getElementById('audio').duration") == pytest.approx(0.8, abs=0.01)
        assert browser.run("document.documentElement.scrollWidth") == 360
        # The second word by the keyboard alone: the span, the largest weight and the sound are at its time.
        browser.run("document.querySelector('#words button').focus()")
        browser.press("ArrowRight")
        assert browser.run("document.activeElement.textContent") == "<w1>"
        assert "1.40 to 1.55 s: largest weight 0.60 at 1.41 s" in browser.run(
            "document.getElementById('status').textContent"
        )
        box = "document.getElementById('{}').getBoundingClientRect()"
        span, whole = (browser.run(f"(b => [b.left, b.width])({box.format(one)})") for one in ("span", "sound"))
        assert (span[0] - whole[0]) / whole[1] == pytest.approx(0.4 / 0.8, abs=0.02)
        assert span[1] / whole[1] == pytest.approx(0.15 / 0.8, abs=0.02)
        browser.run("document.activeElement.click()")
        assert browser.run("document.getElementById('audio').currentTime") == pytest.approx(0.4, abs=0.02)
        # The pointer over the time of the third word tints that word only.
        browser.move(whole[0] + whole[1] * (0.61 / 0.8), browser.run(f"{box.format('sound')}.top") + 20)
        tints = browser.run(
            "[...document.querySelectorAll('#words button')].map(b => +b.style.getPropertyValue('--weight'))"
        )
        assert tints[2] > 0.5 > 0.1 > max(tints[:2])
        browser.run("const s = document.getElementById('head'); s.value = 0; s.dispatchEvent(new Event('change'))")
        assert "at 1.07 s" in browser.run("document.getElementById('status').textContent")
        assert browser.errors() == []


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
    (tmp_path / "text.wav").write_text("no sound")
    assert str(tmp_path / "text.wav") in error("see", str(tmp_path / "text.wav"), *model, code=1)


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
