"""Spectrograms of whole sounds, and where there is sound."""

import numpy as np
import pytest
import torch

from regard.audio import features as features_module
from regard.audio.activity import EnergyGate
from regard.audio.features import SoundFeatures
from regard.audio.languages import LANGUAGES, language_code
from regard.audio.mel import AudioProcessor
from regard.errors import ConfigError
from tests.audio.sounds import RATE, sine


def test_windows_are_those_of_the_whole_spectrogram(monkeypatch: pytest.MonkeyPatch) -> None:
    processor = AudioProcessor(num_mels=16, chunk_seconds=1)
    wave = (0.1 * np.random.default_rng(0).standard_normal(7 * RATE + 123)).astype(np.float32)
    whole = processor(wave)
    in_memory = SoundFeatures((wave, RATE), processor)
    monkeypatch.setattr(features_module, "IN_MEMORY", 150)
    on_disk = SoundFeatures((wave, RATE), processor)
    assert in_memory.frames == on_disk.frames == len(whole) == 700
    for start in (0, 123, 650):
        expected = torch.cat([whole[start : start + 100], torch.zeros(max(0, start - 600), 16)])
        for one in (in_memory, on_disk):
            torch.testing.assert_close(one.window(start, 100), expected, rtol=0, atol=1e-6)
    on_disk.close()
    short = SoundFeatures((wave[: RATE // 2], RATE), processor)
    assert torch.equal(short.window(0, 100), processor(wave[: RATE // 2]))
    assert short.frames == 50


def test_energies_are_mean_squares_of_frames() -> None:
    wave = np.concatenate([np.zeros(RATE, np.float32), sine(1.0, 1000.0)])
    energies = SoundFeatures((wave, RATE), AudioProcessor()).energies
    assert len(energies) == 200
    assert np.abs(energies[:100]).max() == 0
    assert np.abs(energies[100:] - 0.125).max() < 1e-6


def test_the_gate_finds_stretches_of_sound() -> None:
    energies = np.full(1000, 1e-8)
    energies[200:300] = energies[320:400] = energies[700:720] = 1e-2
    gate = EnergyGate(pad=0.0)
    assert gate.spans(energies) == [(200, 400), (700, 720)]
    assert EnergyGate(pad=0.1).spans(energies) == [(190, 410), (690, 730)]
    assert EnergyGate(pad=0.0, gap=0.1).spans(energies) == [(200, 300), (320, 400), (700, 720)]
    assert gate.spans(np.zeros(100)) == []
    assert gate.spans(np.zeros(0)) == []
    with pytest.raises(ConfigError, match="gap=-1"):
        EnergyGate(gap=-1)


def test_languages_have_codes_and_names() -> None:
    assert language_code("Italian") == language_code("IT") == "it"
    assert len(LANGUAGES) == 100
    with pytest.raises(ConfigError, match="did you mean 'italian'"):
        language_code("itallian")
