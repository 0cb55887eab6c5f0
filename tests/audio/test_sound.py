"""Reading of sound files."""

import io
import subprocess
import sys
import tracemalloc
from pathlib import Path

import numpy as np
import pytest

from regard.audio.decoding import RawFormat
from regard.audio.sound import SoundReader, read_sound
from regard.errors import ConfigError, DataError
from tests.audio.sounds import RATE, encoded, sine, write

LOSSY = {".mp3": 0.02, ".ogg": 0.05, ".opus": 0.05, ".m4a": 0.03, ".webm": 0.05, ".g722": 0.03}


def dominant(samples):
    """The frequency of the strongest sine, in Hz."""
    return np.abs(np.fft.rfft(samples * np.hanning(len(samples)))).argmax() * RATE / len(samples)


@pytest.mark.parametrize("suffix", [".wav", ".flac", ".aiff", *LOSSY])
def test_every_format_gives_the_sine_that_was_written(tmp_path, suffix):
    sound = read_sound(write(tmp_path / f"tone{suffix}", sine(1.0)))
    assert sound.samples.dtype == np.float32
    assert abs(sound.info.seconds - 1) < 0.1
    assert abs(dominant(sound.samples[2000:14000]) - 440) < 4
    assert abs(np.abs(sound.samples[4000:12000]).max() - 0.5) < LOSSY.get(suffix, 1e-4)


@pytest.mark.parametrize("rate", [8000, 11025, 22050, 44100, 48000])
def test_rates_are_resampled_and_channels_averaged(tmp_path, rate):
    tone = sine(2.0, rate=rate)
    stereo = np.stack([tone, np.zeros_like(tone)], 1)
    sound = read_sound(write(tmp_path / "stereo.wav", stereo, rate))
    middle = slice(4000, 28000)
    assert len(sound.samples) == 2 * RATE
    assert np.abs(sound.samples[middle] - sine(2.0)[middle] / 2).max() < 2e-3
    assert (sound.info.rate, sound.info.channels) == (rate, 2)
    assert "averaged" in str(sound.info)
    assert f"{rate:,} Hz resampled to 16,000" in str(sound.info)


def test_bytes_files_and_arrays_are_one_sound(tmp_path):
    tone = sine(0.5)
    path = write(tmp_path / "tone.wav", tone)
    from_path = read_sound(path).samples
    with path.open("rb") as file:
        assert np.array_equal(read_sound(file).samples, from_path)
    assert np.array_equal(read_sound(path.read_bytes()).samples, from_path)
    assert np.array_equal(read_sound((tone, RATE)).samples, tone)
    whole = (tone * 32767).astype(np.int16)
    assert np.abs(read_sound((whole, RATE)).samples - tone).max() < 1e-4
    raw = np.stack([whole, whole], 1).astype("<i2").tobytes()
    assert np.array_equal(read_sound(raw, RawFormat(RATE, 2)).samples, read_sound((whole, RATE)).samples)


@pytest.mark.parametrize("rate", [RATE, 44100])
def test_blocks_are_the_whole_sound_and_memory_does_not_grow(tmp_path, rate):
    noise = np.random.default_rng(0).standard_normal(95 * rate).astype(np.float32) * 0.1
    path = write(tmp_path / "long.wav", noise, rate)
    reader = SoundReader(path)
    tracemalloc.start()
    count = sum(len(block) for block in reader)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert count == reader.info.samples == 95 * RATE
    assert peak < 8 * 10 * rate * 4  # a few blocks of 10 s; the whole is 95 s
    blocks = list(SoundReader(path))
    assert len(blocks) > 9
    assert np.array_equal(np.concatenate(blocks), read_sound(path).samples)


def test_info_counts_clipping_and_silence():
    loud = np.clip(sine(1.0, amplitude=2.0), -1, 1)
    info = read_sound((np.concatenate([loud, np.zeros(RATE, np.float32)]), RATE)).info
    assert info.clipped == (np.abs(loud) >= 0.9999).sum()
    assert abs(info.quiet - 1.0) < 1e-9
    assert info.peak == 1.0
    assert "clipped" in str(info)
    assert "silent" in str(read_sound((np.zeros(RATE, np.float32), RATE)).info)


def bad_file(tmp_path: Path, kind: str) -> Path:
    path = tmp_path / f"{kind}.wav"
    tone = sine(1.0)
    if kind == "text":
        path.write_text("This is no sound.\n" * 100)
    elif kind == "empty":
        path.write_bytes(b"")
    elif kind == "headless":
        path.write_bytes(write(path, tone).read_bytes()[:20])
    elif kind == "no-samples":
        write(path, tone[:0])
    elif kind == "one-sample":
        write(path, tone[:1])
    elif kind == "nan":
        import soundfile

        soundfile.write(path, np.where(np.arange(RATE) == 5, np.nan, tone), RATE, subtype="FLOAT")
    elif kind == "huge":
        import soundfile

        soundfile.write(path, tone * 1e9, RATE, subtype="FLOAT")
    elif kind == "folder":
        path.mkdir()
    elif kind == "rate":
        write(path, tone, 10)
    elif kind == "playlist":
        path.write_text("#EXTM3U\n#EXTINF:1,\n/etc/passwd\n#EXT-X-ENDLIST\n")
    return path


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        ("missing", "does not exist"),
        ("folder", "is a folder"),
        ("text", "no sound file, or damaged"),
        ("playlist", "no sound file, or damaged"),
        ("headless", "no sound file, or damaged"),
        ("empty", "is empty"),
        ("no-samples", "no samples"),
        ("one-sample", "has 1 sample at 16,000 Hz; expected at least 0.025 s"),
        ("nan", "not finite"),
        ("huge", r"samples up to 5e\+08"),
        ("rate", "rate 10; expected samples a second"),
    ],
)
def test_bad_files_raise_an_error_with_their_name(tmp_path, kind, words):
    path = bad_file(tmp_path, kind)
    with pytest.raises(DataError, match=words) as caught:
        read_sound(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_truncated_flac_raises():
    buffer = io.BytesIO()
    import soundfile

    soundfile.write(buffer, np.random.default_rng(0).standard_normal(5 * RATE) * 0.1, RATE, format="FLAC")
    with pytest.raises(DataError, match="damaged or truncated after"):
        read_sound(buffer.getvalue()[: len(buffer.getvalue()) // 2])


def test_wrong_arrays_and_raw_formats_raise():
    with pytest.raises(DataError, match=r"int64 of shape \(3,\)"):
        read_sound((np.arange(3), RATE))
    with pytest.raises(DataError, match=r"expected \(samples, rate\)"):
        read_sound((np.zeros(3, np.float32),))
    with pytest.raises(DataError, match="rate 0"):
        read_sound((np.zeros(3, np.float32), 0))
    with pytest.raises(ConfigError, match="65 channels"):
        read_sound(b"ab", RawFormat(RATE, 65))


@pytest.mark.parametrize(
    ("package", "extra", "suffix"), [("soundfile", "audio", "wav"), ("soxr", "audio", "wav"), ("av", "av", "g722")]
)
def test_missing_packages_raise(tmp_path, monkeypatch, package, extra, suffix):
    path = write(
        tmp_path / f"tone.{suffix}",
        sine(0.2, rate=8000 if suffix == "wav" else RATE),
        8000 if suffix == "wav" else RATE,
    )
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(DataError, match=rf"pip install 'regard\[{extra}\]'"):
        read_sound(path)


def test_importing_needs_no_optional_package():
    code = "import sys, regard.audio.mel; print([x for x in ('soundfile', 'soxr', 'av') if x in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"


def test_g722_is_recognized_by_its_name(tmp_path):
    data = encoded(sine(0.5), "g722")
    (tmp_path / "tone.g722").write_bytes(data)
    assert "g722" in read_sound(tmp_path / "tone.g722").info.format
