"""Normalized spectrograms."""

import numpy as np
import pytest
import torch

from regard.audio.mel import AudioProcessor
from regard.audio.spectrogram import SpectrogramProcessor
from regard.errors import ConfigError
from tests.audio.sounds import sine


def noisy(seconds: float, frequency: float) -> np.ndarray:
    wave = sine(seconds, frequency)
    return wave + 0.01 * np.random.default_rng(0).standard_normal(len(wave)).astype(np.float32)


def test_of_an_utterance() -> None:
    process = SpectrogramProcessor(num_mels=20)
    x = process(noisy(0.5, 700))
    assert x.shape == (50, 20)
    assert float(x.mean()) == pytest.approx(0, abs=1e-5)
    assert float(x.std(correction=0)) == pytest.approx(1, abs=1e-5)
    torch.testing.assert_close(process(0.1 * noisy(0.5, 700)), x, rtol=0, atol=1e-3)  # whatever its loudness
    powers = torch.cat(list(AudioProcessor(num_mels=20).powers([noisy(0.5, 700)])))
    torch.testing.assert_close(x, (powers - powers.mean()) / powers.std(correction=0))
    assert process(np.zeros(8000, np.float32)).abs().max() == 0


def test_of_a_corpus() -> None:
    sounds = [noisy(0.3, 300), noisy(0.6, 2000)]
    process = SpectrogramProcessor(num_mels=20).of_corpus(sounds)
    frames = torch.cat([process(sound) for sound in sounds])
    torch.testing.assert_close(frames.mean(0), torch.zeros(20), rtol=0, atol=1e-4)
    torch.testing.assert_close(frames.std(0, correction=0), torch.ones(20), rtol=0, atol=1e-4)
    again = SpectrogramProcessor.from_plain(process.to_plain())
    assert again == process
    assert torch.equal(again(sounds[0]), process(sounds[0]))


def test_misuse() -> None:
    with pytest.raises(ConfigError, match="num_mels=0; expected a whole number"):
        SpectrogramProcessor(num_mels=0)
    with pytest.raises(ConfigError, match="mean has 3 of num_mels=20 bands"):
        SpectrogramProcessor(num_mels=20, mean=(0.0,) * 3, deviation=(1.0,) * 3)
    with pytest.raises(ConfigError, match="deviation has none of num_mels=2 bands"):
        SpectrogramProcessor(num_mels=2, mean=(0.0,) * 2)
    for x in ("text", [1, "a"], [float("nan")]):
        with pytest.raises(ConfigError, match="expected a list of numbers"):
            SpectrogramProcessor.from_plain({"num_mels": 2, "mean": x})
