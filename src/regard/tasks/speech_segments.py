"""From a window's tokens to segments with times, and to where the next window starts."""

from collections.abc import Sequence
from typing import NamedTuple

from regard.audio.mel import FRAME_RATE
from regard.tasks.speech_tokens import TIME_STEP, SpeechTokens

FRAMES_A_STEP = round(TIME_STEP * FRAME_RATE)  # frames between two time tokens


class Span(NamedTuple):
    """Tokens between two times of a window, in frames from its start."""

    start: int
    end: int
    tokens: list[int]


def split_window(tokens: Sequence[int], special: SpeechTokens, frames: int, *, times: bool) -> tuple[list[Span], int]:
    """The segments of a window's text.

    Args:
        tokens: of the window, without prompt and end token.
        special: the special tokens.
        frames: of sound in the window.
        times: whether the text has time tokens.

    Returns:
        The segments, and the frames after which the next window starts: where the last whole segment ends, or all.

    Source: Radford et al. 2022, arXiv 2212.04356, section 3.8, and the code that its authors published.
    """
    if not times:
        return [Span(0, frames, list(tokens))], frames
    is_time = [token >= special.first_time for token in tokens]
    cuts = [i for i in range(1, len(tokens)) if is_time[i - 1] and is_time[i]]  # between an end and the next start
    ends_once = is_time[-2:] == [False, True]  # no start after the last end: the text is whole
    if not cuts:
        steps = [token - special.first_time for token in tokens if token >= special.first_time]
        end = steps[-1] * FRAMES_A_STEP if steps and steps[-1] > 0 else frames
        return [Span(0, end, list(tokens))], frames
    if ends_once:
        cuts.append(len(tokens))
    spans = []
    for first, last in zip([0, *cuts], cuts, strict=False):
        part = list(tokens[first:last])
        start, end = ((token - special.first_time) * FRAMES_A_STEP for token in (part[0], part[-1]))
        spans.append(Span(start, end, part))
    return spans, frames if ends_once else spans[-1].end
