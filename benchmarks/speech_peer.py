"""Prompts, word errors and the peer of the benchmarks of speech."""

import itertools
import json
import os
import re
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

os.environ.setdefault("HF_HUB_OFFLINE", "1")
import numpy as np

from regard.audio.sound import SAMPLE_RATE, read_sound
from regard.tasks.speech_decoding import Fallback
from regard.tasks.transcribe import Transcriber

ONCE = Fallback(temperatures=(0.0,))
TURN = 16  # prompts that a system transcribes before the next one's turn


class Prompt(NamedTuple):
    """A recording and its text."""

    samples: np.ndarray[Any, np.dtype[np.float32]]
    text: str


def prompts_of(folder: Path, table: str) -> list[Prompt]:
    """The prompts of a table."""
    rows = (line.split("\t") for line in (folder / table).read_text(encoding="utf-8").splitlines())
    return [Prompt(read_sound(folder / row[0]).samples, row[1] if len(row) > 1 else "") for row in rows]


class FasterWhisper:
    """The peer, with the weights converted to its format.

    Args:
        model: folder of the checkpoint.
        folder: for the converted weights, new.
        dtype: "float32" or "int8".
    """

    def __init__(self, model: Path, folder: Path, dtype: str = "float32") -> None:
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
        TransformersConverter(str(source), copy_files=files).convert(str(folder / "converted"), quantization=dtype)
        self.model = WhisperModel(str(folder / "converted"), device="cpu", compute_type=dtype, cpu_threads=1)
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

    def text(self, samples: np.ndarray[Any, Any]) -> str:
        """Text of a long file, by its sequential mode with segments' times."""
        how = {"language": "en", "beam_size": 1, "temperature": 0.0, "condition_on_previous_text": False}
        return "".join(x.text for x in self.model.transcribe(samples, **how)[0])

    def words(self, samples: np.ndarray[Any, Any]) -> list[tuple[float, float]]:
        """Start and end of each word of a long file."""
        how = {"language": "en", "beam_size": 1, "word_timestamps": True, "condition_on_previous_text": False}
        segments, _ = self.model.transcribe(samples, **how)
        return [(word.start, word.end) for segment in segments for word in segment.words]

    def count(self, prompts: Sequence[Prompt]) -> int:
        """Number of words in its default settings."""
        parts = (self.model.transcribe(one.samples, language="en")[0] for one in prompts)
        return sum(len(segment.text.split()) for segments in parts for segment in segments)


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


def transcribed(model: Transcriber, prompts: Sequence[Prompt], **how: Any) -> list[Any]:
    sounds = [(one.samples, SAMPLE_RATE) for one in prompts]
    return model.transcribe(sounds, batch_size=TURN, **{"fallback": ONCE, **how})
