"""What a speech model looks at in a sound: cross-attention of its decoder over one window."""

from pathlib import Path
from typing import TYPE_CHECKING

import torch

from regard.attention.check import is_number, show
from regard.audio.decoding import SoundSource
from regard.audio.mel import FRAME_RATE
from regard.audio.sound import SAMPLE_RATE, read_sound
from regard.errors import ConfigError, DataError
from regard.lens.sound_maps import SoundMaps, SpokenWord
from regard.models.whisper import STRIDE
from regard.tasks.speech_tokens import alignment_heads
from regard.tasks.word_times import time_tokens, words_of

if TYPE_CHECKING:
    from regard.tasks.transcribe import Transcriber

MAX_HEADS = 64  # shown; of a larger model, those that give words their times


def look_at_sound(transcriber: "Transcriber", sound: SoundSource, *, start: float = 0.0) -> SoundMaps:
    """Maps of one window of a sound; see `Transcriber.see`."""
    processor, module = transcriber.processor, transcriber.module
    whole = read_sound(sound)
    if not is_number(start) or not 0 <= start < whole.info.seconds:
        raise ConfigError(
            f"start={show(start)}; expected seconds in the sound, from 0 to below {whole.info.seconds:.2f}"
        )
    first = round(start * SAMPLE_RATE)
    samples = whole.samples[first : first + processor.chunk_seconds * SAMPLE_RATE]
    [transcript] = transcriber.transcribe([(samples, SAMPLE_RATE)], words=True, timestamps=False)
    times = [word for segment in transcript.segments for word in segment.words or ()]
    if not times:
        raise DataError(f"{whole.info.name}: no words were recognized, so that no word looks at anything")
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
        raise DataError(f"{whole.info.name}: the text of this window was decoded in parts; choose another start")
    return SoundMaps(
        name=Path(whole.info.name).name,
        samples=samples,
        rate=SAMPLE_RATE,
        mels=mels[:frames].numpy(),
        words=[SpokenWord(word.text, round(start + word.start, 3), round(start + word.end, 3)) for word in times],
        attention=torch.stack(rows, 1).numpy(),
        heads=[f"layer {layer + 1}, head {head + 1}" for layer, head in heads],
        aligned=[heads.index(pair) for pair in aligned],
        start=float(start),
    )
