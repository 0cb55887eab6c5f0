"""What a speech model looks at in a sound: cross-attention of its decoder over time."""

from pathlib import Path
from typing import TYPE_CHECKING

import torch

from regard.attention.check import is_number, show
from regard.audio.decoding import Samples, SoundSource
from regard.audio.mel import FRAME_RATE
from regard.audio.sound import SAMPLE_RATE, read_sound
from regard.errors import ConfigError, DataError
from regard.layers.evaluation import in_evaluation
from regard.lens.record import record
from regard.lens.sound_maps import SoundMaps, SpokenWord
from regard.models.whisper import STRIDE
from regard.tasks.speech_tokens import alignment_heads
from regard.tasks.word_times import TimedTokens, time_tokens, words_of

if TYPE_CHECKING:
    from regard.tasks.recognize import Recognizer
    from regard.tasks.transcribe import Transcriber

NO_WORDS = "no words were recognized, so that no word looks at anything"
MAX_HEADS = 64  # shown; of a larger model, those that give words their times


def look_at_sound(transcriber: "Transcriber", sound: SoundSource, *, start: float = 0.0) -> SoundMaps:
    """Maps of one window of a sound; see `Transcriber.see`."""
    processor, module = transcriber.processor, transcriber.module
    name, samples = _window(sound, start, processor.chunk_seconds)
    [transcript] = transcriber.transcribe([(samples, SAMPLE_RATE)], words=True, timestamps=False)
    times = [word for segment in transcript.segments for word in segment.words or ()]
    if not times:
        raise DataError(f"{name}: {NO_WORDS}")
    special, fields = transcriber.tokens, transcriber.published_fields
    tokens = [token for segment in transcript.segments for token in segment.tokens if token < special.first_time]
    prompt = special.prompt(language=transcript.language, task="transcribe", times=False)
    config, aligned = module.config, alignment_heads(module, fields)
    heads = [(layer, head) for layer in range(config.decoder_layers) for head in range(config.num_heads)]
    heads = heads if len(heads) <= MAX_HEADS else list(aligned)
    parameter = next(module.parameters())
    frames = len(samples) // (SAMPLE_RATE // FRAME_RATE)
    mels = processor(samples)
    with torch.inference_mode():
        memory = module.encode(mels[None].to(parameter.device, parameter.dtype))
        [timed] = time_tokens(module, memory, [tokens], [prompt], [frames], special, aligned)
        targets = torch.tensor([[*prompt, *tokens]], device=parameter.device)
        weights = module.align(targets, memory, heads)[1][0, :, len(prompt) - 1 : -1].float().cpu()  # (heads, T, S)
    positions = min(-(-frames // STRIDE), weights.shape[2])
    rows, at = [], 0
    for _, count in words_of(transcriber.tokenizer, tokens, timed, transcript.language, 0):
        rows.append(weights[:, at : at + count, :positions].mean(1))
        at += count
    if len(rows) != len(times):
        raise DataError(f"{name}: the text of this window was decoded in parts; choose another start")
    return SoundMaps(
        name=Path(name).name,
        samples=samples,
        rate=SAMPLE_RATE,
        mels=mels[:frames].numpy(),
        words=[SpokenWord(word.text, round(start + word.start, 3), round(start + word.end, 3)) for word in times],
        attention=torch.stack(rows, 1).numpy(),
        heads=[f"layer {layer + 1}, head {head + 1}" for layer, head in heads],
        aligned=[heads.index(pair) for pair in aligned],
        start=float(start),
    )


def look_with_recognizer(recognizer: "Recognizer", sound: SoundSource, *, start: float, seconds: int) -> SoundMaps:
    """Maps of a stretch of a sound; see `Recognizer.see`.

    A word's time is where its tokens look: from the largest weight of its first token to that of its last one.
    """
    name, samples = _window(sound, start, seconds)
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
    )


def _window(sound: SoundSource, start: float, seconds: int) -> tuple[str, Samples]:
    """Name of a sound, and the samples of so many seconds of it; ConfigError for a start beyond it."""
    whole = read_sound(sound)
    if not is_number(start) or not 0 <= start < whole.info.seconds:
        raise ConfigError(
            f"start={show(start)}; expected seconds in the sound, from 0 to below {whole.info.seconds:.2f}"
        )
    first = round(start * SAMPLE_RATE)
    return whole.info.name, whole.samples[first : first + seconds * SAMPLE_RATE]
