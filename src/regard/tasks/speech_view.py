"""What a speech model looks at in a sound: cross-attention of its decoder over time."""

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch
from torch import Tensor

from regard.attention.check import is_number, show
from regard.audio.decoding import Samples, SoundSource
from regard.audio.mel import FRAME_RATE, HOP
from regard.audio.sound import QUIET, SAMPLE_RATE, read_sound
from regard.errors import ConfigError, DataError
from regard.layers.evaluation import in_evaluation
from regard.lens.alignment import READ
from regard.lens.record import record
from regard.lens.recording_view import SOURCE, TARGET, special_places, view_of
from regard.lens.sound_maps import SoundMaps, SpokenWord, window_note
from regard.lens.view import Axis, View
from regard.models.whisper import STRIDE
from regard.tasks.speech_tokens import alignment_heads
from regard.tasks.transcript import Transcript
from regard.tasks.word_times import TimedTokens, words_of

if TYPE_CHECKING:
    from regard.tasks.recognize import Recognizer
    from regard.tasks.transcribe import Transcriber

NO_WORDS = "no words were recognized, so that no word looks at anything"
MAX_HEADS = 64  # shown; of a larger model, those that give words their times


class Window(NamedTuple):
    """A stretch of a sound.

    Args:
        name: of the sound.
        samples: (N,) of the stretch, at 16 kHz.
        total: seconds of the whole sound.
    """

    name: str
    samples: Samples
    total: float


class Decoded(NamedTuple):
    """A window of a sound and its text, as the model reads and writes them.

    Args:
        window: of the sound.
        transcript: of the window, with the times of words.
        mels: (frames, bands), padded to the model's window.
        prompt: tokens before the text.
        tokens: of the text.
    """

    window: Window
    transcript: Transcript
    mels: Tensor
    prompt: list[int]
    tokens: list[int]

    @property
    def frames(self) -> int:
        """Frames of sound, without padding."""
        return len(self.window.samples) // HOP

    @property
    def positions(self) -> int:
        """Source positions of sound, without padding."""
        return min(-(-self.frames // STRIDE), len(self.mels) // STRIDE)


def look_at_sound(transcriber: "Transcriber", sound: SoundSource, *, start: float = 0.0) -> SoundMaps:
    """Maps of one window of a sound; see `Transcriber.see`."""
    decoded, module = _decoded(transcriber, sound, start), transcriber.module
    name, samples, total = decoded.window
    times = [word for segment in decoded.transcript.segments for word in segment.words or ()]
    config, aligned = module.config, alignment_heads(module, transcriber.published_fields)
    heads = [(layer, head) for layer in range(config.decoder_layers) for head in range(config.num_heads)]
    heads = heads if len(heads) <= MAX_HEADS else list(aligned)
    prompt, tokens, parameter = decoded.prompt, decoded.tokens, next(module.parameters())
    with torch.inference_mode():
        memory = module.encode(decoded.mels[None].to(parameter.device, parameter.dtype))
        targets = torch.tensor([[*prompt, *tokens]], device=parameter.device)
        weights = module.align(targets, memory, heads)[1][0, :, len(prompt) - 1 : -1].float().cpu()  # (heads, T, S)
    rows, at, untimed = [], 0, TimedTokens([0.0] * (len(tokens) + 1), [1.0] * len(tokens))
    for _, count in words_of(transcriber.tokenizer, tokens, untimed, decoded.transcript.language, 0):
        rows.append(weights[:, at : at + count, : decoded.positions].mean(1))
        at += count
    if len(rows) != len(times):
        raise DataError(f"{name}: the text of this window was decoded in parts; choose another start")
    return SoundMaps(
        name=Path(name).name,
        samples=samples,
        rate=SAMPLE_RATE,
        mels=decoded.mels[: decoded.frames].numpy(),
        words=[SpokenWord(word.text, round(start + word.start, 3), round(start + word.end, 3)) for word in times],
        attention=torch.stack(rows, 1).numpy(),
        heads=[f"layer {layer + 1}, head {head + 1}" for layer, head in heads],
        aligned=[heads.index(pair) for pair in aligned],
        start=float(start),
        total=total,
    )


def view_sound(transcriber: "Transcriber", sound: SoundSource, *, start: float, grid: int, top: int) -> View:
    """Maps in bins of all attentions over one window of a sound; see `Transcriber.view`."""
    decoded, module = _decoded(transcriber, sound, start), in_evaluation(transcriber.module)
    name, samples, total = decoded.window
    read, parameter = [*decoded.prompt, *decoded.tokens], next(module.parameters())
    inputs = decoded.mels[None].to(parameter.device, parameter.dtype)
    with torch.no_grad(), record(module, grid=grid, top=top) as recording:
        module(inputs, None, torch.tensor([read], device=parameter.device))
    count, step = len(decoded.mels) // STRIDE, STRIDE / FRAME_RATE
    seconds = [f"{start + step * position:.2f} s" for position in range(count)]
    # the row of a token is the step that wrote it; what it could read are the tokens before it
    written = transcriber.tokenizer.pieces([*read[1:], module.vocabulary.eos])
    note = window_note(float(start), len(samples) / SAMPLE_RATE, total)
    padding = (
        f"{decoded.positions * step + start:.2f} s and later is silence that pads the model's window: special places"
    )
    notes = [*([note] if note else []), *([padding] if decoded.positions < count else [])]
    view = view_of(recording, {SOURCE: seconds, TARGET: written}, title=Path(name).name, notes=notes)
    labels = transcriber.tokenizer.pieces(read)
    axes = {
        **view.axes,
        SOURCE: replace(view.axes[SOURCE], special=frozenset(range(decoded.positions, count))),
        READ: Axis(name=READ, labels=labels, special=special_places(labels)),
    }
    layers = [replace(layer, columns=READ) if layer.columns == TARGET else layer for layer in view.layers]
    return replace(view, axes=axes, layers=layers)


def _decoded(transcriber: "Transcriber", sound: SoundSource, start: float) -> Decoded:
    """A window of a sound with its text; DataError where no words are recognized."""
    window = _window(sound, start, transcriber.processor.chunk_seconds)
    # the full window also of a model that reads short sounds in a shorter one: its weights are those that are shown
    [transcript] = transcriber.transcribe([(window.samples, SAMPLE_RATE)], words=True, timestamps=False, window="full")
    if not any(segment.words for segment in transcript.segments):
        raise DataError(f"{window.name}: {NO_WORDS}")
    special = transcriber.tokens
    return Decoded(
        window=window,
        transcript=transcript,
        mels=transcriber.processor(window.samples),
        prompt=special.prompt(language=transcript.language, task="transcribe", times=False),
        tokens=[token for one in transcript.segments for token in one.tokens if token < special.first_time],
    )


def look_with_recognizer(recognizer: "Recognizer", sound: SoundSource, *, start: float, seconds: int) -> SoundMaps:
    """Maps of a stretch of a sound; see `Recognizer.see`.

    A word's time is where its tokens look: from the largest weight of its first token to that of its last one.
    """
    name, samples, total = _window(sound, start, seconds)
    mels = recognizer.processor(samples)
    module, tokenizer = in_evaluation(recognizer.module), recognizer.tokenizer
    [[best, *_]] = recognizer.decode([mels])
    if not tokenizer.decode(best.tokens).strip():
        raise DataError(f"{name}: {NO_WORDS}")
    parameter, count = next(module.parameters()), len(best.tokens)
    targets = torch.tensor([[module.vocabulary.bos, *best.tokens]], device=parameter.device)
    with torch.no_grad(), record(module, weights=True) as recording:
        module(mels[None].to(parameter.device, parameter.dtype), None, targets)
    heads, weights = [], []
    paths = [path for path in recording if path.endswith("cross_attention")]
    for layer, path in enumerate(paths, start=1):
        own = recording[path].weights[0, :, :count].float().cpu()  # (H, T, S)
        heads += [f"layer {layer}, head {head + 1}" for head in range(len(own))]
        weights.append(own)
    joined = torch.cat(weights)
    step = len(mels) / joined.shape[2] / FRAME_RATE
    largest = joined[-len(weights[-1]) :].mean(0).argmax(1).double()  # of the last layer
    centers = ((largest + 0.5) * step * FRAME_RATE).tolist()
    timed = TimedTokens([*centers, centers[-1]], [1.0] * count)
    rows, words, at = [], [], 0
    for word, tokens in words_of(tokenizer, best.tokens, timed, None, 0):
        times = centers[at : at + tokens]
        words.append(SpokenWord(word.text, start + min(times) / FRAME_RATE, start + max(times) / FRAME_RATE))
        rows.append(joined[:, at : at + tokens].mean(1))
        at += tokens
    return SoundMaps(
        name=Path(name).name,
        samples=samples,
        rate=SAMPLE_RATE,
        mels=mels.numpy(),
        words=words,
        attention=torch.stack(rows, 1).numpy(),
        heads=heads,
        aligned=list(range(len(heads) - len(weights[-1]), len(heads))),
        start=float(start),
        step=step,
        total=total,
    )


def _window(sound: SoundSource, start: float, seconds: int) -> Window:
    """So many seconds of a sound; ConfigError for a start beyond it, DataError for a window that is silent."""
    whole = read_sound(sound)
    name, total = whole.info.name, whole.info.seconds
    if not is_number(start) or not 0 <= start < total:
        raise ConfigError(f"start={show(start)}; expected seconds in the sound, from 0 to below {total:.2f}")
    first = round(start * SAMPLE_RATE)
    samples = whole.samples[first : first + seconds * SAMPLE_RATE]
    if float(np.abs(samples).max(initial=0)) < QUIET:
        end = start + len(samples) / SAMPLE_RATE
        raise DataError(f"{name} is silent from {start:g} to {end:g} s: below -60 dB of full scale")
    return Window(name, samples, total)
