"""Recognizers learn spoken symbols from nothing: each symbol is a tone, drawn anew for each batch.

Bar: 99% of unheard strings exact, after at most 60 s of one thread.
"""

import time
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from regard.audio.sound import SAMPLE_RATE
from regard.audio.spectrogram import SpectrogramProcessor
from regard.layers.output_projection import IGNORED
from regard.models.registry import build, config_from_plain
from regard.models.seq2seq import Seq2Seq
from regard.tasks.registry import RECOGNIZERS
from tests.audio.sounds import sine

SECONDS = 60  # of CPU time
STEPS = 200  # after which the learning rate falls
FIRST, LONGEST, MELS = 3, 4, 20  # 0, 1 and 2 are pad, bos and eos
TONES = np.geomspace(250, 4000, 6)  # Hz
N = FIRST + len(TONES)
MADE: dict[str, tuple[dict[str, Any], float]] = {
    "listener": (
        {"hidden_dim": 64, "embed_dim": 32, "align_dim": 32, "encoder_layers": 2, "attention_kind": "location"},
        4e-3,
    ),
    "speech-transformer": (
        {"embed_dim": 64, "num_heads": 2, "ffn_dim": 128, "encoder_layers": 2, "decoder_layers": 1, "channels": 8},
        3e-3,
    ),
}


class Spoken(NamedTuple):
    """Strings of symbols and their sounds."""

    inputs: Tensor  # (B, F, M)
    lengths: Tensor  # (B,)
    targets: Tensor  # (B, T): bos, symbols, padding
    labels: Tensor  # (B, T): symbols, eos, IGNORED


def spoken(count: int, generator: np.random.Generator) -> Spoken:
    """Tones of 0.12 to 0.25 s, up to 4% off in pitch, with pauses of 0.08 to 0.15 s, in noise."""
    process = SpectrogramProcessor(num_mels=MELS)
    strings, spectrograms = [], []
    for _ in range(count):
        string = generator.integers(len(TONES), size=generator.integers(1, LONGEST + 1))
        parts = []
        for symbol in string:
            tone = sine(generator.uniform(0.12, 0.25), TONES[symbol] * generator.uniform(0.96, 1.04))
            pause = np.zeros(int(SAMPLE_RATE * generator.uniform(0.08, 0.15)), np.float32)
            parts += [generator.uniform(0.4, 1.0) * tone, pause]
        wave = np.concatenate(parts)
        wave += 0.01 * generator.standard_normal(len(wave))
        spectrograms.append(process(wave.astype(np.float32)))
        strings.append(torch.from_numpy(FIRST + string))
    lengths = torch.tensor([len(x) for x in spectrograms])
    pad = nn.utils.rnn.pad_sequence
    begin, end = torch.tensor([1]), torch.tensor([2])
    targets = pad([torch.cat([begin, x]) for x in strings], batch_first=True)
    labels = pad([torch.cat([x, end]) for x in strings], batch_first=True, padding_value=IGNORED)
    return Spoken(pad(spectrograms, batch_first=True), lengths, targets, labels)


@torch.inference_mode()
def exact(model: Seq2Seq, batch: Spoken) -> float:
    """The share of strings that greedy decoding writes right, their end included."""
    state, tokens = model.eval().prefill(batch.inputs, batch.lengths)
    tokens, steps = tokens[:, None], []
    for _ in range(batch.labels.shape[1]):
        tokens = model.step(tokens, state).argmax(-1)
        steps.append(tokens)
    right = (torch.cat(steps, 1) == batch.labels) | (batch.labels == IGNORED)
    return float(right.all(1).float().mean())


def train(model: Seq2Seq, rate: float, seconds: float) -> int:
    """Adam on new strings, until greedy decoding makes no mistake or the CPU time is up; the steps."""
    generator, step, start = np.random.default_rng(0), 0, time.process_time()
    valid = spoken(100, np.random.default_rng(1))
    optimizer = torch.optim.AdamW(model.parameters(), lr=rate, betas=(0.9, 0.98))
    while time.process_time() - start < seconds:
        model.train()
        for group in optimizer.param_groups:
            group["lr"] = rate * min(1, (step + 1) / 50, STEPS / (step + 1))
        batch = spoken(16, generator)
        loss = model(*batch[:3]).cross_entropy(batch.labels)
        optimizer.zero_grad()
        (loss.smoothed / loss.count).backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        step += 1
        if step % 50 == 0 and exact(model, valid) == 1:
            break
    return step


def test_every_recognizer_is_here() -> None:
    assert set(MADE) == set(RECOGNIZERS)


@pytest.mark.slow
@pytest.mark.parametrize("name", MADE)
def test_it_learns(name: str) -> None:
    torch.manual_seed(0)
    changes, rate = MADE[name]
    plain = {"vocabulary": {"size": N}, "num_mels": MELS, "dropout": 0.0, **changes}
    model = build(config_from_plain(name, plain))
    steps = train(model, rate, SECONDS)
    assert exact(model, spoken(400, np.random.default_rng(2))) >= 0.99, f"after {steps} steps"
