"""Does Whisper in regard write what it writes in transformers, how fast beside faster-whisper, and when was each word?

The folder of prompts holds test.tsv and quiet.tsv, rows of a sound file and its text; the model is one of English in
the hub's layout. Times are of the processor, on one thread, in turns of a few prompts, so that other work on the
machine changes ratios little. The peers run in float32 on the same weights, faster-whisper in its sequential and its
batched mode; the model runs in int8 too.
"""

import argparse
import itertools
import json
import os
import random
import re
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

os.environ.setdefault("HF_HUB_OFFLINE", "1")
import numpy as np
import torch
from common import Peak, replaced, worst, write

import regard as rg
from regard.audio.activity import EnergyGate
from regard.audio.features import SoundFeatures
from regard.audio.mel import FRAME_RATE, AudioProcessor
from regard.audio.sound import SAMPLE_RATE, read_sound
from regard.tasks.speech_decoding import Fallback
from regard.tasks.transcribe import Transcriber

ONCE = Fallback(temperatures=(0.0,))
TURN = 16  # prompts that a system transcribes before the next one's turn
PARITY = 24  # prompts that transformers transcribes
JOINED = 40  # prompts of the long file, with gaps of 1 to 2 s
SILENCE = 0.4  # seconds around a prompt in which its first word may be found
MINUTES = 60  # of the long file whose memory is measured


class Prompt(NamedTuple):
    """A recording and its text."""

    samples: np.ndarray[Any, np.dtype[np.float32]]
    text: str


def prompts_of(folder: Path, table: str) -> list[Prompt]:
    """The prompts of a table."""
    rows = (line.split("\t") for line in (folder / table).read_text(encoding="utf-8").splitlines())
    return [Prompt(read_sound(folder / row[0]).samples, row[1] if len(row) > 1 else "") for row in rows]


class FasterWhisper:
    """The peer, with the weights converted to its format."""

    def __init__(self, model: Path, folder: Path) -> None:
        import transformers
        from ctranslate2.converters import TransformersConverter
        from faster_whisper import BatchedInferencePipeline, WhisperModel

        source = folder / "source"
        shutil.copytree(model, source)
        transformers.WhisperFeatureExtractor().save_pretrained(source)
        end = "<|endoftext|>"
        names = {"unk_token": end, "bos_token": end, "eos_token": end, "tokenizer_class": "WhisperTokenizerFast"}
        (source / "tokenizer_config.json").write_text(json.dumps(names))
        files = ["tokenizer.json", "preprocessor_config.json"]
        TransformersConverter(str(source), copy_files=files).convert(str(folder / "converted"), quantization="float32")
        self.model = WhisperModel(str(folder / "converted"), device="cpu", compute_type="float32", cpu_threads=1)
        self.batched = BatchedInferencePipeline(self.model)

    def one_by_one(self, prompts: Sequence[Prompt]) -> list[str]:
        """Its sequential mode, without times."""
        how = {"language": "en", "beam_size": 1, "temperature": 0.0, "without_timestamps": True}
        how["condition_on_previous_text"] = False
        return ["".join(x.text for x in self.model.transcribe(one.samples, **how)[0]).strip() for one in prompts]

    def in_batches(self, prompts: Sequence[Prompt]) -> list[str]:
        """Its batched mode: the prompts joined, and where each is."""
        ends = np.cumsum([0, *(len(one.samples) for one in prompts)]) / SAMPLE_RATE
        clips = [{"start": float(a), "end": float(b)} for a, b in itertools.pairwise(ends)]
        segments, _ = self.batched.transcribe(
            np.concatenate([one.samples for one in prompts]), language="en", beam_size=1, temperature=0.0,
            clip_timestamps=clips, vad_filter=False, batch_size=TURN, without_timestamps=True,
        )  # fmt: skip
        texts = [""] * len(prompts)
        for segment in segments:
            middle = (segment.start + segment.end) / 2
            texts[min(int(np.searchsorted(ends, middle)) - 1, len(texts) - 1)] += segment.text
        return [text.strip() for text in texts]

    def words(self, samples: np.ndarray[Any, Any]) -> list[tuple[float, float]]:
        """Start and end of each word of a long file."""
        how = {"language": "en", "beam_size": 1, "word_timestamps": True, "condition_on_previous_text": False}
        segments, _ = self.model.transcribe(samples, **how)
        return [(word.start, word.end) for segment in segments for word in segment.words]

    def count(self, prompts: Sequence[Prompt]) -> int:
        """Words that it hears in its default settings."""
        heard = (self.model.transcribe(one.samples, language="en")[0] for one in prompts)
        return sum(len(segment.text.split()) for segments in heard for segment in segments)


def errors(texts: Sequence[str], prompts: Sequence[Prompt]) -> float:
    """Word error rate in percent, of texts normalized as Whisper's authors do."""
    from transformers.models.whisper.english_normalizer import EnglishTextNormalizer

    normalized = EnglishTextNormalizer({})
    wrong = total = 0
    for text, prompt in zip(texts, prompts, strict=True):
        found, true = normalized(text).split(), normalized(re.sub(r"\.\.\.", " ", prompt.text)).split()
        row = list(range(len(found) + 1))
        for i, word in enumerate(true, start=1):
            above, row = row, [i]
            for j, other in enumerate(found):
                row.append(min(above[j + 1] + 1, row[j] + 1, above[j] + (word != other)))
        wrong, total = wrong + row[-1], total + len(true)
    return round(100 * wrong / total, 2)


def parity(model: Transcriber, folder: Path, prompts: Sequence[Prompt]) -> Iterator[dict[str, Any]]:
    """The same logits and the same text as transformers."""
    import transformers

    transformers.logging.set_verbosity_error()
    theirs = transformers.WhisperForConditionalGeneration.from_pretrained(folder, dtype=torch.float32).eval()
    texts = [str(one) for one in transcribed(model, prompts)]
    special = model.tokens
    start = special.prompt(language=None, task="transcribe", times=False)
    # The plain search: Whisper's own `generate` drops the last token of short texts where eos is the padding too.
    search = transformers.GenerationConfig(
        decoder_start_token_id=special.start, eos_token_id=special.end, pad_token_id=special.end,
        suppress_tokens=list(special.suppressed), begin_suppress_tokens=list(special.suppressed_first),
        max_length=model.module.config.max_length,
    )  # fmt: skip
    generate = transformers.GenerationMixin.generate
    difference, differing = 0.0, 0
    for prompt, text in zip(prompts, texts, strict=True):
        inputs = model.processor(prompt.samples)[None]
        with torch.inference_mode():
            features, begun = inputs.transpose(1, 2), torch.tensor([start])
            ids = generate(theirs, features, generation_config=search, decoder_input_ids=begun)[0].tolist()
            differing += model.tokenizer.decode([i for i in ids if i < model.tokens.end]).strip() != text
            targets = torch.tensor([[*start, *model.tokenizer.encode(f" {text}")]])
            expected = theirs(features, decoder_input_ids=targets).logits
            difference = max(difference, worst(model.module(inputs, None, targets).logits, expected))
    case = f"{len(prompts)} prompts, transformers"
    yield {"case": f"logits, {case}", "value": float(f"{difference:.2g}"), "unit": "largest difference", "bar": 1e-4}
    yield {"case": f"greedy text, {case}", "value": differing, "unit": "texts that differ", "bar": 2}


def transcribed(model: Transcriber, prompts: Sequence[Prompt], **how: Any) -> list[Any]:
    sounds = [(one.samples, SAMPLE_RATE) for one in prompts]
    return model.transcribe(sounds, batch_size=TURN, **{"fallback": ONCE, **how})


def speed(
    model: Transcriber, small: Transcriber, peer: FasterWhisper, prompts: Sequence[Prompt]
) -> Iterator[dict[str, Any]]:
    """Processor time and word errors of each system, in turns; `small` is the model in int8."""
    runs: dict[str, Callable[[Sequence[Prompt]], list[str]]] = {
        "regard": lambda some: list(map(str, transcribed(model, some))),
        "regard, auto window": lambda some: list(map(str, transcribed(model, some, window="auto"))),
        "regard, int8": lambda some: list(map(str, transcribed(small, some))),
        "faster-whisper": peer.one_by_one,
        "faster-whisper, batched": peer.in_batches,
    }
    seconds, texts = dict.fromkeys(runs, 0.0), {name: [] for name in runs}
    for run in runs.values():
        run(prompts[:2])
    for first in range(0, len(prompts), TURN):
        for name, run in runs.items():
            start = time.process_time()
            texts[name] += run(prompts[first : first + TURN])
            seconds[name] += time.process_time() - start
    rates = {name: errors(texts[name], prompts) for name in runs}
    fastest = min(seconds["faster-whisper"], seconds["faster-whisper, batched"])
    case, of = f"{len(prompts)} prompts", "of faster-whisper's faster mode"
    for name, bar in (("regard", 0.5), ("regard, auto window", 0.25)):
        yield {
            "case": f"{case}: {name}",
            "value": round(seconds[name] / fastest, 3),
            "unit": f"x the time {of}",
            "bar": bar,
        }
    ratio = round(seconds["regard, int8"] / seconds["regard"], 3)
    yield {"case": f"{case}: regard, int8", "value": ratio, "unit": "x the time of float32", "bar": None}
    for name, rate in rates.items():
        yield {"case": f"{case}: {name}", "value": rate, "unit": "% WER", "bar": None}
        yield {
            "case": f"{case}: {name}",
            "value": round(seconds[name] / len(prompts), 3),
            "unit": "s a prompt",
            "bar": None,
        }
    lost = round(rates["regard, auto window"] - rates["regard"], 2)
    yield {"case": f"{case}: auto window", "value": lost, "unit": "points of WER more", "bar": 0.2}


def joined(prompts: Sequence[Prompt]) -> tuple[np.ndarray[Any, Any], list[tuple[float, float]]]:
    """A long file of prompts with silent gaps, and where the sound of each starts and ends, in seconds."""
    draw, parts, spans, at = random.Random(0), [], [], 0
    for prompt in prompts:
        gap = np.zeros(int(draw.uniform(1, 2) * SAMPLE_RATE), np.float32)
        loud = np.flatnonzero(
            EnergyGate().loud(SoundFeatures((prompt.samples, SAMPLE_RATE), AudioProcessor()).energies)
        )
        start = (at + len(gap)) / SAMPLE_RATE
        spans.append((start + loud[0] / FRAME_RATE, start + (loud[-1] + 1) / FRAME_RATE))
        parts += [gap, prompt.samples]
        at += len(gap) + len(prompt.samples)
    return np.concatenate(parts), spans


def word_times(model: Transcriber, peer: FasterWhisper, prompts: Sequence[Prompt]) -> Iterator[dict[str, Any]]:
    """How far the first word of each prompt is from where its sound starts."""
    samples, spans = joined(prompts)
    [transcript] = model.transcribe([(samples, SAMPLE_RATE)], words=True)
    ours = [(word.start, word.end) for segment in transcript.segments for word in segment.words]
    minutes = len(samples) / SAMPLE_RATE / 60
    for name, words in (("regard", ours), ("faster-whisper", peer.words(samples))):
        distances = []
        for start, end in spans:
            inside = [a for a, b in words if start - SILENCE <= (a + b) / 2 <= end + SILENCE]
            distances += [abs(inside[0] - start)] if inside else []
        case = f"first words in {minutes:.1f} minutes: {name}"
        bar = 80 if name == "regard" else None
        yield {
            "case": case,
            "value": round(1000 * float(np.median(distances)), 1),
            "unit": "ms, median error",
            "bar": bar,
        }
        yield {
            "case": case,
            "value": len(spans) - len(distances),
            "unit": f"of {len(spans)} prompts not heard",
            "bar": None,
        }


def quiet(model: Transcriber, peer: FasterWhisper, prompts: Sequence[Prompt]) -> Iterator[dict[str, Any]]:
    """Words that are heard where nothing is said."""
    minutes = sum(len(one.samples) for one in prompts) / SAMPLE_RATE / 60
    settings: dict[str, dict[str, Any]] = {
        "regard": {"fallback": Fallback()},
        "regard, gate": {"fallback": Fallback(), "gate": EnergyGate()},
    }
    counts = {
        name: sum(len(str(one).split()) for one in transcribed(model, prompts, **how)) for name, how in settings.items()
    }
    counts["faster-whisper"] = peer.count(prompts)
    for name, count in counts.items():
        case = f"{len(prompts)} files without words, {minutes:.1f} minutes: {name}"
        yield {"case": case, "value": count, "unit": "words", "bar": None}


def memory(prompts: Sequence[Prompt]) -> Iterator[dict[str, Any]]:
    """Memory of the spectrogram of an hour, beside that of a minute."""
    import soundfile

    samples = np.concatenate([one.samples for one in prompts])
    samples = np.resize(samples, 60 * SAMPLE_RATE)
    peaks = []
    with tempfile.TemporaryDirectory() as folder:
        for minutes in (1, MINUTES):
            path = Path(folder, f"{minutes}.wav")
            with soundfile.SoundFile(path, "w", SAMPLE_RATE, 1) as file:
                for _ in range(minutes):
                    file.write(samples)
            with Peak() as peak:
                SoundFeatures(path, AudioProcessor()).close()
            peaks.append(peak.bytes)
    more = round((peaks[1] - peaks[0]) / 2**20, 1)
    yield {"case": f"spectrogram of {MINUTES} minutes", "value": more, "unit": "MB more than of 1 minute", "bar": 60}


def measure(given: argparse.Namespace, folder: Path) -> Iterator[dict[str, Any]]:
    model: Transcriber = rg.load(given.model)
    prompts = prompts_of(given.prompts, "test.tsv")
    some = prompts[:: max(1, len(prompts) // given.count)][: given.count]
    yield from memory(some)
    yield from parity(model, given.model, some[:PARITY])
    peer = FasterWhisper(given.model, folder)
    yield from speed(model, rg.load(given.model, dtype="int8"), peer, some)
    yield from word_times(model, peer, some[:JOINED])
    yield from quiet(model, peer, prompts_of(given.prompts, "quiet.tsv"))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", type=Path, required=True, help="folder of a Whisper checkpoint of English")
    parser.add_argument("--prompts", type=Path, required=True, help="folder with test.tsv and quiet.tsv")
    parser.add_argument("--count", type=int, default=96, help="prompts that are transcribed")
    parser.add_argument("--quick", action="store_true", help="try the script on a few prompts")
    given = parser.parse_args()
    torch.set_num_threads(1)
    if given.quick:
        given.count = 4
    with tempfile.TemporaryDirectory() as folder:
        found = measure(given, Path(folder))
        write("speech", found if given.quick else replaced("speech", found), quick=given.quick)


if __name__ == "__main__":
    main()
