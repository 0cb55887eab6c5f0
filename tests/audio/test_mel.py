"""The log-mel spectrogram against the transformers package's."""

import json

import numpy as np
import pytest
import torch

from regard.audio.mel import AudioProcessor, mel_filters
from regard.errors import ConfigError
from tests.audio.sounds import RATE, sine


def noise(count: int) -> np.ndarray:
    return (np.random.default_rng(count).standard_normal(count) * 0.1).astype(np.float32)


@pytest.fixture(scope="module", params=[80, 128])
def extractor(request):
    from transformers import WhisperFeatureExtractor

    return WhisperFeatureExtractor(feature_size=request.param)


@pytest.mark.parametrize("count", [1, 200, 201, 399, 400, 47_777, 479_700, 479_999, 480_000, 600_123])
def test_spectrogram_is_the_published_one(extractor, count):
    processor, samples = AudioProcessor(num_mels=extractor.feature_size), noise(count)
    expected = extractor(samples, sampling_rate=RATE, truncation=False)["input_features"][0].T
    result = processor(samples).numpy()
    assert result.shape == expected.shape
    assert np.abs(result - expected).max() < 1e-5
    assert np.abs(mel_filters(extractor.feature_size).numpy() - extractor.mel_filters).max() < 1e-7


def test_unpadded_spectrogram_is_the_published_one(extractor):
    samples = noise(70_123)
    expected = extractor(samples, sampling_rate=RATE, padding="longest")["input_features"][0].T
    result = AudioProcessor(num_mels=extractor.feature_size)(samples, pad=False).numpy()
    assert result.shape == expected.shape == (438, extractor.feature_size)
    assert np.abs(result - expected).max() < 1e-5


def test_blocks_of_any_sizes_give_the_same_frames():
    samples, processor = noise(123_456), AudioProcessor()
    whole = torch.cat(list(processor.powers([samples])))
    for seed in range(5):
        cuts = np.sort(np.random.default_rng(seed).integers(0, len(samples), 9))
        blocks = np.split(samples, [*cuts[:3] % 300, *cuts]) if seed == 0 else np.split(samples, cuts)
        parts = torch.cat(list(processor.powers(blocks)))
        assert parts.shape == whole.shape == (771, 80)
        assert (parts - whole).abs().max() < 1e-5


def test_a_sine_is_in_the_band_of_its_frequency():
    spectrogram = AudioProcessor()(sine(1.0, 1000.0), pad=False)
    band = int(spectrogram[50].argmax())
    frequencies = torch.linspace(0, 8000, 201)
    center = float(frequencies[mel_filters(80)[:, band].argmax()])
    assert abs(center - 1000) <= 40


def test_silence_is_finite():
    spectrogram = AudioProcessor()(np.zeros(RATE, np.float32))
    assert spectrogram.shape == (3000, 80)
    assert torch.equal(spectrogram, torch.full_like(spectrogram, -1.5))


def test_configurations_round_trip_and_unknown_ones_raise():
    processor = AudioProcessor(num_mels=128, chunk_seconds=10)
    assert AudioProcessor.from_plain(json.loads(json.dumps(processor.to_plain()))) == processor
    assert AudioProcessor.from_published(json.loads(processor.to_json())) == processor
    with pytest.raises(ConfigError, match="n_fft=512 is not known; expected 400"):
        AudioProcessor.from_published({"n_fft": 512})
    with pytest.raises(ConfigError, match="num_mels=0"):
        AudioProcessor(num_mels=0)
    with pytest.raises(ConfigError, match="unknown settings bands"):
        AudioProcessor.from_plain({"bands": 3})
