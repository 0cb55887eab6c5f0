"""Sounds for tests: sines, and files of them."""

import io
from pathlib import Path

import numpy as np

RATE = 16_000


def sine(seconds: float, hertz: float = 440.0, *, rate: int = RATE, amplitude: float = 0.5) -> np.ndarray:
    """(N,) float32."""
    time = np.arange(round(seconds * rate)) / rate
    return (amplitude * np.sin(2 * np.pi * hertz * time)).astype(np.float32)


def write(path: Path, samples: np.ndarray, rate: int = RATE) -> Path:
    """Write samples (N,) or (N, channels) in the format of the path's name."""
    import soundfile

    if path.suffix in (".m4a", ".webm", ".g722", ".mp4"):
        path.write_bytes(encoded(samples, path.suffix[1:], rate))
    elif path.suffix == ".opus":
        soundfile.write(path, samples, rate, format="OGG", subtype="OPUS")
    else:
        soundfile.write(path, samples, rate)
    return path


def encoded(samples: np.ndarray, suffix: str, rate: int = RATE) -> bytes:
    """A file of FFmpeg's."""
    import av

    container_format, codec = {
        "m4a": ("mp4", "aac"),
        "mp4": ("mp4", "aac"),
        "webm": ("webm", "libopus"),
        "g722": ("g722", "g722"),
    }[suffix]
    block = samples.reshape(len(samples), -1)
    buffer = io.BytesIO()
    with av.open(buffer, "w", format=container_format) as container:
        layout = "mono" if block.shape[1] == 1 else "stereo"
        stream = container.add_stream(codec, rate=rate, layout=layout)
        frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(block.T), format="fltp", layout=layout)
        frame.sample_rate = rate
        resampler = av.AudioResampler(
            format=stream.format, layout=layout, rate=rate, frame_size=stream.frame_size or 320
        )
        for part in [*resampler.resample(frame), *resampler.resample(None)]:
            container.mux(stream.encode(part))
        container.mux(stream.encode(None))
    return buffer.getvalue()
