"""Attention over a sound: the weights of a random model, by word and in bins."""

from pathlib import Path

import numpy as np
import pytest
import torch

import regard as rg
from regard.errors import ConfigError
from regard.lens import files
from regard.lens.record import Recording
from regard.lens.view import binned
from regard.tasks.transcribe import Transcriber
from tests.audio.sounds import sine, write
from tests.cli.run import regard
from tests.tasks.speech_models import POSITIONS, write_whisper

RATE, SECONDS = 16_000, 0.8
SOUND = sine(SECONDS, 300.0)
TEXT = "one twenty six"
LOUD = 20  # positions beside embeddings of tokens


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_whisper(tmp_path_factory.mktemp("models") / "whisper", embed_dim=64, ffn_dim=32)


@pytest.fixture(scope="module")
def model(folder: Path) -> Transcriber:
    """A model that writes TEXT, a token a letter: its positions decide what it writes, and its attention is random."""
    model = rg.load(folder)
    special, module = model.tokens, model.module
    first = len(special.prompt(language="en", task="transcribe", times=False)) - 1
    with torch.no_grad():
        for place, token in enumerate([*model.tokenizer.encode(TEXT), special.end]):
            module.positions.weight[first + place] = LOUD * module.embedding.weight[token]
    return model


def of_model(model: Transcriber, sound: np.ndarray) -> tuple[list[int], Recording]:
    """Tokens that the model reads, and all its weights over a window."""
    [transcript] = model.transcribe([(sound, RATE)], words=True, timestamps=False)
    tokens = [token for segment in transcript.segments for token in segment.tokens]
    prompt = model.tokens.prompt(language=transcript.language, task="transcribe", times=False)
    with torch.no_grad(), rg.record(model.module, weights=True) as recording:
        model.module(model.processor(sound)[None], None, torch.tensor([[*prompt, *tokens]]))
    return [*prompt, *tokens], recording


def test_weights_and_times_are_those_of_the_model(model: Transcriber) -> None:
    maps = model.see((SOUND, RATE))
    [transcript] = model.transcribe([(SOUND, RATE)], words=True, timestamps=False)
    times = [word for segment in transcript.segments for word in segment.words]
    assert [word.text for word in maps.words] == [word.text for word in times]
    assert [(word.start, word.end) for word in maps.words] == [
        (pytest.approx(word.start, abs=1e-3), pytest.approx(word.end, abs=1e-3)) for word in times
    ]
    read, recording = of_model(model, SOUND)
    counts = [len(word.text) for word in maps.words]
    assert "".join(word.text for word in maps.words) == TEXT
    assert len(counts) == 3
    first = len(read) - sum(counts) - 1  # the step that writes a token reads the one before it
    positions = round(SECONDS * POSITIONS)
    assert maps.heads == ["layer 1, head 1", "layer 1, head 2", "layer 2, head 1", "layer 2, head 2"]
    assert list(maps.aligned) == [1, 2]
    weights = torch.cat([recording[f"decoder.{i}.cross_attention"].weights[0] for i in range(2)])
    at = first
    for word, count in enumerate(counts):
        expected = weights[:, at : at + count, :positions].mean(1)
        np.testing.assert_allclose(maps.attention[:, word], expected.numpy(), atol=1e-5)
        at += count
    assert at == len(read) - 1


def test_bins_are_those_of_the_weights(model: Transcriber, tmp_path: Path) -> None:
    view = model.view((SOUND, RATE), grid=16)
    read, recording = of_model(model, SOUND)
    assert view.kinds == ["cross", "encoder", "decoder"]
    assert {layer.path for layer in view.layers} == set(recording)
    for layer in view.layers:
        weights = recording[layer.path].weights[0]
        assert max(layer.grid.shape[1:]) <= 16
        expected = binned(weights, layer.row_edges, layer.column_edges)
        torch.testing.assert_close(layer.grid, expected, atol=1e-5, rtol=0)
    source = view.axes["source"]
    assert source.labels[:3] == ["0.00 s", "0.02 s", "0.04 s"]
    assert source.special == frozenset(range(round(SECONDS * POSITIONS), POSITIONS))
    assert list(view.notes) == ["0.80 s and later is silence that pads the model's window: special places"]
    pieces = model.tokenizer.pieces(read)
    assert view.axes["target read"].labels == pieces
    assert view.axes["target"].labels == [*pieces[1:], "<|endoftext|>"]
    assert view.map("encoder").columns[0] == "0.00 s … 0.06 s"
    for name in ("view.npz", "view.json"):
        files.save(view, tmp_path / name)
        assert files.load(tmp_path / name).axes == view.axes


def test_a_stretch_of_a_longer_sound(model: Transcriber) -> None:
    view = model.view((np.concatenate([SOUND, SOUND]), RATE), start=0.5, grid=8)
    assert view.axes["source"].labels[0] == "0.50 s"
    assert list(view.notes) == ["shown: 0.5 to 1.5 s of 1.60 s; --start chooses another stretch"]
    for wrong in (-1, 1.6, float("nan")):
        with pytest.raises(ConfigError, match=r"expected seconds in the sound, from 0 to below 1\.60"):
            model.view((np.concatenate([SOUND, SOUND]), RATE), start=wrong)


def test_the_command_in_bins(folder: Path, tmp_path: Path) -> None:
    sound, html, npz = write(tmp_path / "tone.wav", SOUND), tmp_path / "maps.html", tmp_path / "maps.npz"
    result = regard(
        "see", str(sound), "--model", str(folder), "--grid", "8", "--kind", "encoder", "--html", str(html),
        "--npz", str(npz),
    )  # fmt: skip
    assert result.exit_code == 0
    assert result.stdout.startswith("Attention of source to itself")
    assert "is silence that pads the model's window" in result.stderr
    assert "<h1>tone.wav</h1>" in html.read_text()
    assert files.load(npz).axes["source"].labels[1] == "0.02 s"
