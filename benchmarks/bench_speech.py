"""Does Whisper in regard write what it writes in transformers, and how fast beside faster-whisper?

The folder of prompts holds test.tsv, rows of a sound file and its text; the model is one of English in the hub's
layout. Times are of the processor, on one thread, in turns of a few prompts, so that other work on the machine changes
ratios little. The peers run on the same weights, faster-whisper in its sequential and its batched mode.
"""

import argparse
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from common import replaced, worst, write
from speech_peer import TURN, FasterWhisper, Prompt, errors, prompts_of, transcribed

import regard as rg
from regard.audio.activity import EnergyGate
from regard.audio.sound import SAMPLE_RATE
from regard.tasks.transcribe import Transcriber

BATCHES = 200  # prompts that are transcribed alone and in batches


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
            features, prompt_tokens = inputs.transpose(1, 2), torch.tensor([start])
            ids = generate(theirs, features, generation_config=search, decoder_input_ids=prompt_tokens)[0].tolist()
            differing += model.tokenizer.decode([i for i in ids if i < model.tokens.end]).strip() != text
            targets = torch.tensor([[*start, *model.tokenizer.encode(f" {text}")]])
            expected = theirs(features, decoder_input_ids=targets).logits
            difference = max(difference, worst(model.module(inputs, None, targets).logits, expected))
    case = f"{len(prompts)} prompts, transformers"
    yield {"case": f"logits, {case}", "value": float(f"{difference:.2g}"), "unit": "largest difference", "bar": 1e-4}
    yield {"case": f"greedy text, {case}", "value": differing, "unit": "texts that differ", "bar": 2}


def speed(
    model: Transcriber, small: Transcriber, peer: FasterWhisper, small_peer: FasterWhisper, prompts: Sequence[Prompt]
) -> Iterator[dict[str, Any]]:
    """Processor time and word errors of each system, in turns; `small` is in int8."""
    runs: dict[str, Callable[[Sequence[Prompt]], list[str]]] = {
        "regard": lambda some: list(map(str, transcribed(model, some))),
        "regard, auto window": lambda some: list(map(str, transcribed(model, some, window="auto"))),
        "regard, gate": lambda some: list(map(str, transcribed(model, some, gate=EnergyGate()))),
        "regard, int8": lambda some: list(map(str, transcribed(small, some))),
        "faster-whisper": peer.one_by_one,
        "faster-whisper, batched": peer.in_batches,
        "faster-whisper, int8": small_peer.one_by_one,
        "faster-whisper, batched, int8": small_peer.in_batches,
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
    case, of = f"{len(prompts)} prompts", "of faster-whisper's faster mode"
    for name, bar, peers in (
        ("regard", 0.5, ("faster-whisper", "faster-whisper, batched")),
        ("regard, auto window", 0.25, ("faster-whisper", "faster-whisper, batched")),
        ("regard, int8", 0.9, ("faster-whisper, int8", "faster-whisper, batched, int8")),
    ):
        ratio = round(seconds[name] / min(seconds[other] for other in peers), 3)
        unit = f"x the time {of}" + (" in int8" if "int8" in name else "")
        yield {"case": f"{case}: {name}", "value": ratio, "unit": unit, "bar": bar}
    for name, rate in rates.items():
        yield {"case": f"{case}: {name}", "value": rate, "unit": "% WER", "bar": None}
        yield {
            "case": f"{case}: {name}",
            "value": round(seconds[name] / len(prompts), 3),
            "unit": "s a prompt",
            "bar": None,
        }
    for name, bar in (("auto window", 0.2), ("gate", 0.2), ("int8", 0.3)):
        lost = round(rates[f"regard, {name}"] - rates["regard"], 2)
        yield {"case": f"{case}: {name}", "value": lost, "unit": "points of WER more", "bar": bar}


def independence(model: Transcriber, prompts: Sequence[Prompt]) -> Iterator[dict[str, Any]]:
    """Texts that depend on the batch, or on silence after the sound."""
    together = list(map(str, transcribed(model, prompts)))
    alone = [str(transcribed(model, [prompt])[0]) for prompt in prompts]
    silence = np.zeros(SAMPLE_RATE, np.float32)
    padded = [Prompt(np.concatenate([prompt.samples, silence]), prompt.text) for prompt in prompts]
    of_padded = list(map(str, transcribed(model, padded)))
    padded_alone = [str(transcribed(model, [prompt])[0]) for prompt in padded]
    for case, some, others in (
        ("alone or in a batch", together, alone),
        ("padded, alone or in a batch", of_padded, padded_alone),
    ):
        differing = sum(a != b for a, b in zip(some, others, strict=True))
        yield {"case": f"{len(prompts)} prompts, {case}", "value": differing, "unit": "texts that differ", "bar": 0}


def measure(given: argparse.Namespace, folder: Path) -> Iterator[dict[str, Any]]:
    model: Transcriber = rg.load(given.model)
    prompts = prompts_of(given.prompts, "test.tsv")
    some = prompts[:: max(1, len(prompts) // given.count)][: given.count]
    peers = [FasterWhisper(given.model, folder / dtype, dtype) for dtype in ("float32", "int8")]
    yield from speed(model, rg.load(given.model, dtype="int8"), *peers, some)
    yield from independence(model, some[:BATCHES])
    window = model.processor.chunk_seconds * SAMPLE_RATE
    yield from parity(model, given.model, [one for one in some if len(one.samples) <= window][: given.parity])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", type=Path, required=True, help="folder of a Whisper checkpoint of English")
    parser.add_argument("--prompts", type=Path, required=True, help="folder with test.tsv")
    parser.add_argument("--count", type=int, default=426, help="prompts that are transcribed")
    parser.add_argument("--parity", type=int, default=426, help="prompts that transformers transcribes too")
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
