"""Which attention reads on beyond the length it was trained on? Chorowski et al.'s figure 3 in miniature, on digits.

Listeners learn to write strings of 1 to 7 spoken digits and read strings of 7, 21 and 70, from speakers that they have
not heard, in words or letter by letter (--units). Each run is a line of results/listener.jsonl as soon as it ends: the
same command started again goes on.

Digits are recordings (--recordings: tables of a sound file and its text, of which rows of one digit count; the last
table's speaker is tested), else of the voices of espeak-ng or flite if they are installed, else pairs of tones.
"""

import argparse
import itertools
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple, final

import numpy as np
import torch
from architectures import Runs
from common import RESULTS, write
from torch import Tensor, nn

import regard as rg
from regard.audio.mel import FRAME_RATE
from regard.audio.sound import SAMPLE_RATE, read_sound
from regard.audio.spec_augment import spec_augment
from regard.audio.spectrogram import SpectrogramProcessor
from regard.data.tokenizer import Tokenizer
from regard.data.word_tokenizer import WordTokenizer
from regard.decode.search import Greedy
from regard.layers.output_projection import IGNORED
from regard.models.listener import Listener, ListenerConfig
from regard.tasks.encoder_decoder import vocabulary_of
from regard.tasks.recognize import Recognizer
from regard.tasks.word_errors import error_rate

WORDS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
LONGEST, TIMES = 7, (1, 3, 10)  # digits of a string to train on; the strings that are read are so many times as long
LOCATION: dict[str, Any] = {"attention_kind": "location"}
CONFIGURATIONS: dict[str, dict[str, Any]] = {
    "content": {},
    "location": LOCATION,
    "location, smoothing": {**LOCATION, "smoothing": True},
    "location, flat": {**LOCATION, "reduction": 1, "kernel_size": 201},
    "location, CTC 0": {**LOCATION, "ctc_weight": 0.0},
}
ALIGNED = 0.9  # share of tokens that attend to their word, from which on a run counts as aligned
NEAR = 0.1  # seconds around a word that still count as it
ESPEAK = [f"en{accent}+{voice}" for accent in ("-us", "-gb") for voice in ("m1", "m2", "m4", "m7", "f1", "f3", "f4")]
ESPEAK_TEST = [f"en{accent}+{voice}" for accent in ("-us", "-gb") for voice in ("m3", "f2")]
FLITE, FLITE_TEST = ("kal", "awb", "rms"), ("slt",)
AnyTokenizer = Tokenizer | WordTokenizer
Samples = np.ndarray[Any, np.dtype[np.float32]]
Speaker = list[list[Samples]]  # utterances of each digit


@final
class Voices(NamedTuple):
    """Speakers to train on and to test with, and where they are from."""

    source: str
    train: list[Speaker]
    test: list[Speaker]


@final
class Spoken(NamedTuple):
    """A string of digits as a model reads it."""

    mels: Tensor  # (F, M)
    words: list[str]
    spans: list[tuple[float, float]]  # seconds of each word


def voices(tables: Sequence[str]) -> Voices:
    """Speakers from recordings, synthesizers or tones, in this order."""
    if tables:
        *train, test = [recorded(Path(table)) for table in tables]
        return Voices("recordings", train or [test], [test])
    if shutil.which("espeak-ng"):
        train, test = ([synthesized("espeak-ng", voice) for voice in some] for some in (ESPEAK, ESPEAK_TEST))
        return Voices("espeak-ng", train, test)
    if shutil.which("flite"):
        return Voices("flite", *([synthesized("flite", voice) for voice in some] for some in (FLITE, FLITE_TEST)))
    draw = np.random.default_rng(0)
    return Voices("tones", [tones(draw) for _ in range(20)], [tones(draw) for _ in range(5)])


def recorded(table: Path) -> Speaker:
    """A speaker from a table of sound files and texts."""
    speaker: Speaker = [[] for _ in WORDS]
    for line in table.read_text(encoding="utf-8").splitlines():
        name, text = line.split("\t")[:2]
        word = text.strip().strip(".").lower()
        number = WORDS.index(word) if word in WORDS else int(word) if word in map(str, range(10)) else None
        if number is not None:
            speaker[number].append(read_sound(str(table.parent / name)).samples)
    if missing := [word for word, some in zip(WORDS, speaker, strict=True) if not some]:
        raise SystemExit(f"{table} has no recordings of {', '.join(missing)}; expected rows of each digit alone")
    return speaker


def synthesized(program: str, voice: str) -> Speaker:
    """A speaker from a synthesizer, at three speeds if it has any."""
    speaker: Speaker = []
    with tempfile.TemporaryDirectory() as folder:
        file = str(Path(folder, "word.wav"))
        for word in WORDS:
            speaker.append([])
            for speed in (130, 160, 190) if program == "espeak-ng" else (0,):
                how = ["-v", voice, "-s", str(speed), "-w", file, word]
                command = how if program == "espeak-ng" else ["-voice", voice, "-t", word, "-o", file]
                subprocess.run([program, *command], check=True, capture_output=True)
                speaker[-1].append(read_sound(file).samples)
    return speaker


def tones(draw: np.random.Generator) -> Speaker:
    """A made-up speaker, whose digits are pairs of tones, all higher or lower than another's."""
    pitch, speaker = draw.uniform(0.9, 1.1), list[list[Samples]]()
    for first, second in list(itertools.permutations(np.geomspace(300, 3000, 4), 2))[: len(WORDS)]:
        speaker.append([])
        for _ in range(3):
            parts = []
            for frequency in (first, second):
                place = np.arange(int(SAMPLE_RATE * draw.uniform(0.12, 0.2))) / SAMPLE_RATE
                parts.append(0.3 * np.sin(2 * np.pi * frequency * pitch * place))
            speaker[-1].append(np.concatenate(parts).astype(np.float32))
    return speaker


def spoken(speakers: Sequence[Speaker], count: int, draw: np.random.Generator) -> Spoken:
    """A string of so many digits of one speaker, with pauses of 0.03 to 0.2 s, in noise."""
    speaker = speakers[draw.integers(len(speakers))]
    parts, words, spans, at = [], [], [], 0
    for digit in draw.integers(len(WORDS), size=count):
        pause = np.zeros(int(SAMPLE_RATE * draw.uniform(0.03, 0.2)), np.float32)
        wave = speaker[digit][draw.integers(len(speaker[digit]))]
        begin = at + len(pause)
        parts += [pause, wave]
        at = begin + len(wave)
        words.append(WORDS[digit])
        spans.append((begin / SAMPLE_RATE, at / SAMPLE_RATE))
    samples = draw.uniform(0.3, 1.0) * np.concatenate(parts)
    samples += 0.002 * draw.standard_normal(len(samples))
    return Spoken(SpectrogramProcessor(num_mels=40)(samples.astype(np.float32)), words, spans)


def trained(
    config: ListenerConfig, strings: Sequence[Spoken], tokenizer: AnyTokenizer, seed: int, given: Any
) -> tuple[Listener, int]:
    """A model trained for so many minutes of processor time, and its steps."""
    torch.manual_seed(seed)
    model, draw = Listener(config), np.random.default_rng(seed)
    optimizer = torch.optim.AdamW(model.parameters(), lr=given.rate, betas=(0.9, 0.98), weight_decay=0.01)
    order = sorted(range(len(strings)), key=lambda i: len(strings[i].mels))
    start, step, told = time.process_time(), 0, time.perf_counter()
    while (done := (time.process_time() - start) / (60 * given.minutes)) < 1:
        first = int(draw.integers(max(1, len(order) - given.batch + 1)))  # of similar lengths
        batch = [strings[i] for i in order[first : first + given.batch]]
        inputs, lengths, targets, labels = collated(batch, tokenizer)
        for group in optimizer.param_groups:
            group["lr"] = given.rate * min(1.0, (step + 1) / 100, (1 - done) / 0.5)
        loss = model(spec_augment(inputs, lengths), lengths, targets).cross_entropy(labels)
        optimizer.zero_grad()
        (loss.smoothed / loss.count).backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        step += 1
        if time.perf_counter() - told > 30:
            told = time.perf_counter()
            print(f"  {done:.0%}, step {step:,}, loss {float(loss.plain) / loss.count:.3f}", flush=True)
    return model.eval(), step


def collated(batch: Sequence[Spoken], tokenizer: AnyTokenizer) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Inputs, lengths, targets and labels."""
    pad = nn.utils.rnn.pad_sequence
    texts = [torch.tensor(tokenizer.encode(" ".join(one.words))) for one in batch]
    begin, end = torch.tensor([tokenizer.bos]), torch.tensor([tokenizer.eos])
    targets = pad([torch.cat([begin, x]) for x in texts], batch_first=True, padding_value=tokenizer.pad)
    labels = pad([torch.cat([x, end]) for x in texts], batch_first=True, padding_value=IGNORED)
    inputs = pad([one.mels for one in batch], batch_first=True)
    return inputs, torch.tensor([len(one.mels) for one in batch]), targets, labels


def tokens_per_second(strings: Sequence[Spoken], tokenizer: AnyTokenizer) -> float:
    """The most tokens a second of any string, its end included."""
    counts = (len(tokenizer.encode(" ".join(one.words))) + 1 for one in strings)
    return FRAME_RATE * max(count / len(one.mels) for count, one in zip(counts, strings, strict=True))


def word_errors(model: Listener, strings: Sequence[Spoken], tokenizer: AnyTokenizer, rate: float) -> float:
    """Word error rate in percent, greedily decoded; texts may have a quarter more than so many tokens a second."""
    runner = Recognizer(model, tokenizer, {"training": {"tokens_per_second": rate}})
    texts = []
    for first in range(0, len(strings), 16):
        mels = [one.mels for one in strings[first : first + 16]]
        texts += [tokenizer.decode(best.tokens) for [best, *_] in runner.decode(mels, Greedy())]
    return error_rate([text.split() for text in texts], [one.words for one in strings]).percent


@torch.inference_mode()
def alignment(model: Listener, strings: Sequence[Spoken], tokenizer: AnyTokenizer) -> float:
    """Share of tokens whose attention is largest within their own word."""
    seen: list[Tensor] = []

    def take(module: nn.Module, inputs: object, output: Any) -> Any:
        seen.append(output[1].weights[:, 0, 0])
        return output[0]

    hooks = [
        model.cross_attention.register_forward_pre_hook(_asked, with_kwargs=True),
        model.cross_attention.register_forward_hook(take),
    ]
    right = total = 0
    for one in strings:
        inputs, lengths, targets, _ = collated([one], tokenizer)
        seen.clear()
        model(inputs, lengths, targets)
        places = torch.cat(seen).argmax(1) * model.config.reduction / FRAME_RATE
        for (_, tokens), (start, end) in zip(tokenizer.words(targets[0, 1:].tolist()), one.spans, strict=True):
            inside = [start - NEAR <= float(places[i]) <= end + NEAR for i in tokens]
            inside = inside[1:] or inside  # without the space before letters
            right, total = right + sum(inside), total + len(inside)
    for hook in hooks:
        hook.remove()
    return right / total


def _asked(module: nn.Module, inputs: Any, options: Any) -> Any:
    return inputs, {**options, "summary": rg.Summary(weights=True)}


def cases_of(runs: Sequence[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """Word error rates by configuration and length; each seed's stand beside the mean."""
    for name in CONFIGURATIONS:
        own = [run for run in runs if run["name"] == name]
        for times in TIMES if own else ():
            values = {run["seed"]: run["wer"][str(times)] for run in own}
            aligned = {run["seed"]: run["alignment"] >= ALIGNED for run in own}
            case = f"{name}, strings of {times * LONGEST} digits"
            mean = round(sum(values.values()) / len(values), 2)
            beside = {"by_seed": values, "aligned": aligned, "minutes": own[0]["setting"]["minutes"]}
            yield {"case": case, "unit": "% WER", "value": mean, "bar": None, **beside}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--recordings", nargs="*", default=[], help="tables of speakers; the last one is tested")
    parser.add_argument("--units", choices=("words", "letters"), default="words", help="that are written")
    parser.add_argument("--minutes", type=float, default=12.0, help="of processor time, of each run")
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--configurations", nargs="+", choices=CONFIGURATIONS, default=list(CONFIGURATIONS))
    parser.add_argument("--strings", type=int, default=3000, help="to train on")
    parser.add_argument("--tests", type=int, default=50, help="strings of each length")
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--hidden", type=int, default=128)
    parser.add_argument("--rate", type=float, default=4e-3, help="peak learning rate")
    parser.add_argument("--quick", action="store_true", help="try the script out")
    given = parser.parse_args()
    torch.set_num_threads(1)
    if given.quick:
        given.minutes, given.seeds, given.strings, given.tests, given.hidden = 0.03, [1], 40, 2, 16
    speakers, draw = voices(given.recordings), np.random.default_rng(0)
    strings = [spoken(speakers.train, int(draw.integers(1, LONGEST + 1)), draw) for _ in range(given.strings)]
    tests = {times: [spoken(speakers.test, times * LONGEST, draw) for _ in range(given.tests)] for times in TIMES}
    tokenizer: AnyTokenizer = Tokenizer.of_characters(WORDS)
    if given.units == "words":
        tokenizer = WordTokenizer.train(WORDS, vocab_size=len(WORDS) + 4)  # special tokens
    rate = tokens_per_second(strings, tokenizer)
    names = ("units", "minutes", "strings", "tests", "batch", "hidden", "rate")
    setting = {"digits": speakers.source, **{name: getattr(given, name) for name in names}}
    with tempfile.TemporaryDirectory() as folder:
        runs = Runs((Path(folder) if given.quick else RESULTS) / "listener.jsonl", setting)
        for seed, name in itertools.product(given.seeds, given.configurations):
            if any((run["name"], run["seed"]) == (name, seed) for run in runs.found()):
                continue
            print(f"{name}, seed {seed}", flush=True)
            config = ListenerConfig(
                vocabulary=vocabulary_of(tokenizer), num_mels=40, hidden_dim=given.hidden, embed_dim=64, align_dim=64,
                **CONFIGURATIONS[name],
            )  # fmt: skip
            model, steps = trained(config, strings, tokenizer, seed, given)
            measured = {
                str(times): round(word_errors(model, some, tokenizer, rate), 2) for times, some in tests.items()
            }
            share = round(alignment(model, tests[1], tokenizer), 3)
            runs.add(name, seed, wer=measured, alignment=share, steps=steps)
            print(f"  WER {measured}, aligned {share:.0%}, {steps:,} steps", flush=True)
        write("listener", cases_of(runs.found()), quick=given.quick)


if __name__ == "__main__":
    main()
