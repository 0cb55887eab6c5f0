"""When was each word of a long file, beside faster-whisper, how fast, in how much memory, and what is in noise?

The folder of prompts holds test.tsv and quiet.tsv, rows of a sound file and its text; the model is one of English in
the hub's layout. The long file is of prompts with silent gaps of 1 to 2 s between them, so that the start of each is
known. Times are of the processor, on one thread.
"""

import argparse
import itertools
import random
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from common import Peak, replaced, write
from speech_peer import FasterWhisper, Prompt, prompts_of, transcribed

import regard as rg
from regard.audio.activity import EnergyGate
from regard.audio.features import SoundFeatures
from regard.audio.mel import FRAME_RATE, AudioProcessor
from regard.audio.sound import SAMPLE_RATE
from regard.tasks.speech_decoding import Fallback
from regard.tasks.transcribe import Transcriber

Samples = np.ndarray[Any, np.dtype[np.float32]]
SILENCE = 0.4  # seconds around a prompt in which its first word may be
LAST = 300  # seconds at the end of the long file that are looked at apart
NOISE_SECONDS = 300


def joined(prompts: Sequence[Prompt], minutes: float) -> tuple[Samples, list[tuple[float, float]]]:
    """A file of prompts, again and again, and where the sound of each starts and ends, in seconds."""
    draw, parts, spans, at = random.Random(0), list[Samples](), [], 0
    for prompt in itertools.cycle(prompts):
        if at > 60 * minutes * SAMPLE_RATE:
            break
        gap = np.zeros(int(draw.uniform(1, 2) * SAMPLE_RATE), np.float32)
        features = SoundFeatures((prompt.samples, SAMPLE_RATE), AudioProcessor())
        loud = np.flatnonzero(EnergyGate().loud(features.energies))
        start = (at + len(gap)) / SAMPLE_RATE
        spans.append((start + loud[0] / FRAME_RATE, start + (loud[-1] + 1) / FRAME_RATE))
        parts += [gap, prompt.samples]
        at += len(gap) + len(prompt.samples)
    return np.concatenate(parts), spans


def word_times(model: Transcriber, peer: FasterWhisper, long: Samples, spans: Any) -> Iterator[dict[str, Any]]:
    """How far the first word of each prompt is from where its sound starts, and memory beside a file of a minute."""
    with Peak() as of_minute:
        model.transcribe([(long[: 60 * SAMPLE_RATE], SAMPLE_RATE)], words=True)
    with Peak() as of_all:
        [transcript] = model.transcribe([(long, SAMPLE_RATE)], words=True)
    minutes = round(len(long) / SAMPLE_RATE / 60)
    more = round((of_all.bytes - of_minute.bytes) / 2**20, 1)
    case = f"{minutes} minutes with times of words"
    yield {"case": f"{case}: regard", "value": more, "unit": "MB more than of 1 minute", "bar": 60}
    ours = [(word.start, word.end) for segment in transcript.segments for word in segment.words]
    for name, words in (("regard", ours), ("faster-whisper", peer.words(long))):
        bar = 80 if name == "regard" else None
        for part, some in (("", spans), (", last 5 minutes", [x for x in spans if x[0] > spans[-1][1] - LAST])):
            distances = []
            for start, end in some:
                inside = [a for a, b in words if start - SILENCE <= (a + b) / 2 <= end + SILENCE]
                distances += [abs(inside[0] - start)] if inside else []
            median = round(1000 * float(np.median(distances)), 1)
            within = round(100 * sum(x <= 0.2 for x in distances) / len(some), 1)
            where = f"first words of prompts in {minutes} minutes{part}: {name}"
            yield {"case": where, "value": median, "unit": "ms, median error", "bar": bar}
            yield {"case": where, "value": within, "unit": "% within 200 ms", "bar": None}


def speed(model: Transcriber, peer: FasterWhisper, long: Samples) -> Iterator[dict[str, Any]]:
    """Processor time of a long file with times of segments, greedy, without fallback."""
    seconds = {}
    for name, run in (
        ("regard", lambda: model.transcribe([(long, SAMPLE_RATE)], fallback=Fallback(temperatures=(0.0,)))),
        ("faster-whisper", lambda: peer.text(long)),
    ):
        start = time.process_time()
        run()
        seconds[name] = time.process_time() - start
    case = f"a file of {len(long) / SAMPLE_RATE / 60:.0f} minutes"
    ratio = round(seconds["regard"] / seconds["faster-whisper"], 3)
    yield {"case": case, "value": ratio, "unit": "x the time of faster-whisper's sequential mode", "bar": 0.9}
    for name, x in seconds.items():
        yield {"case": f"{case}: {name}", "value": round(x, 1), "unit": "s", "bar": None}


def noise() -> Samples:
    """White noise, 20 dB below full scale."""
    samples: Samples = np.random.default_rng(0).standard_normal(NOISE_SECONDS * SAMPLE_RATE).astype(np.float32)
    return samples * np.float32(0.1 / 3)


def music() -> Samples:
    """Chords of three decaying tones with overtones, two a second."""
    draw, length = np.random.default_rng(1), SAMPLE_RATE // 2
    t = np.arange(length) / SAMPLE_RATE
    chords = []
    for _ in range(2 * NOISE_SECONDS):
        root = 110 * 2 ** (draw.integers(0, 25) / 12)
        tones = [root * 2 ** (step / 12) * overtone for step in (0, 4, 7) for overtone in (1, 2, 3)]
        chords.append(sum(np.sin(2 * np.pi * f * t) / (1 + i % 3) for i, f in enumerate(tones)) * np.exp(-3 * t))
    samples: Samples = (0.05 * np.concatenate(chords)).astype(np.float32)
    return samples


def quiet(model: Transcriber, peer: FasterWhisper, prompts: Sequence[Prompt]) -> Iterator[dict[str, Any]]:
    """Words a minute where nothing is said, in the default settings."""
    settings: dict[str, dict[str, Any]] = {
        "regard": {"fallback": Fallback()},
        "regard, gate": {"fallback": Fallback(), "gate": EnergyGate()},
        "regard, auto window": {"fallback": Fallback(), "window": "auto"},
    }
    sounds = {
        f"{len(prompts)} files without words": prompts,
        "noise": [Prompt(noise(), "")],
        "chords": [Prompt(music(), "")],
    }
    words, total = dict.fromkeys((*settings, "faster-whisper"), 0), 0.0
    for case, some in sounds.items():
        minutes = sum(len(one.samples) for one in some) / SAMPLE_RATE / 60
        counts = {
            name: sum(len(str(one).split()) for one in transcribed(model, some, **how))
            for name, how in settings.items()
        }
        counts["faster-whisper"] = peer.count(some)
        total += minutes
        for name, count in counts.items():
            words[name] += count
            where = f"{case}, {minutes:.1f} minutes: {name}"
            yield {"case": where, "value": round(count / minutes, 1), "unit": "words a minute", "bar": None}
    for name, count in words.items():
        where = f"all without words, {total:.1f} minutes: {name}"
        bar = None if name == "faster-whisper" else 1
        yield {"case": where, "value": round(count / total, 2), "unit": "words a minute", "bar": bar}


def measure(given: argparse.Namespace, folder: Path) -> Iterator[dict[str, Any]]:
    model: Transcriber = rg.load(given.model)
    peer = FasterWhisper(given.model, folder / "peer")
    prompts = prompts_of(given.prompts, "test.tsv")
    yield from quiet(model, peer, prompts_of(given.prompts, "quiet.tsv"))
    yield from speed(model, peer, joined(prompts, given.minutes / 3)[0])
    yield from word_times(model, peer, *joined(prompts, given.minutes))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", type=Path, required=True, help="folder of a Whisper checkpoint of English")
    parser.add_argument("--prompts", type=Path, required=True, help="folder with test.tsv and quiet.tsv")
    parser.add_argument("--minutes", type=float, default=60, help="of the long file; a third of it is timed")
    parser.add_argument("--quick", action="store_true", help="try the script on a short file")
    given = parser.parse_args()
    torch.set_num_threads(1)
    if given.quick:
        given.minutes = 0.6
    with tempfile.TemporaryDirectory() as folder:
        cases = measure(given, Path(folder))
        write("speech_long", cases if given.quick else replaced("speech_long", cases), quick=given.quick)


if __name__ == "__main__":
    main()
