"""When each word was said: cross-attention of alignment heads, dynamic time warping, and the silence around.

Source: Radford et al. 2022, arXiv 2212.04356, and the code that its authors published ("timing.py"); dynamic time
warping: Sakoe and Chiba 1978, "Dynamic programming algorithm optimization for spoken word recognition".
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from regard.audio.activity import Activity
from regard.audio.languages import UNSPACED
from regard.audio.mel import FRAME_RATE
from regard.models.seq2seq import Memory
from regard.models.whisper import STRIDE, Whisper
from regard.tasks.speech_tokens import SpeechTokens
from regard.tasks.transcript import Word

SMOOTHED = 7  # positions of the median filter over time
BEFORE = "\"'\u201c\u00bf([{-"  # punctuation that belongs to the word behind it
AFTER = "\"'.\u3002,\uff0c!\uff01?\uff1f:\uff1a\u201d)]}\u3001"  # punctuation that belongs to the word before it
LEAST_PAUSE = 10  # frames of silence that count as a pause before or after a word
INNER_PAUSE = 25  # frames of silence that no word has inside
LOOK_BACK = 50  # frames that a word may start earlier than its attention says, if a pause ends there


class TimedTokens(NamedTuple):
    """When each token of a text was said, in frames from the window's start."""

    starts: list[float]  # of each token, and the end of the last
    probabilities: list[float]


def time_tokens(
    module: Whisper,
    memory: Memory,
    texts: Sequence[Sequence[int]],
    prompts: Sequence[Sequence[int]],
    frames: Sequence[int],
    special: SpeechTokens,
    heads: Sequence[tuple[int, int]],
) -> list[TimedTokens]:
    """When the tokens of several windows were said.

    Args:
        module: in evaluation mode.
        memory: the encoder's output for the windows.
        texts: tokens of each, without times.
        prompts: tokens before each text, equally many; the last says that no times follow.
        frames: of sound in each window.
        special: the special tokens.
        heads: layers and heads of cross-attention that align.

    Returns:
        Times for each window.
    """
    before, longest_text = len(prompts[0]), max(map(len, texts))
    rows = [
        [*prompt, *text, *[special.end] * (longest_text - len(text))]
        for prompt, text in zip(prompts, texts, strict=True)
    ]
    targets = torch.tensor(rows, device=memory.states.device)
    hidden, weights = module.align(targets, memory, heads)
    timed = []
    for row, text in enumerate(texts):
        positions = max(1, min(frames[row] // STRIDE, weights.shape[3]))
        own = weights[row, :, : before + len(text), :positions].float().cpu()
        path = warp(-smoothed(own)[before - 1 :].double().numpy())
        logits = module.projection.logits(hidden[row, before - 1 : before - 1 + len(text)]).float()
        logits = logits[:, : special.end]
        ids = torch.tensor(list(text), device=logits.device)[:, None]
        probabilities = logits.softmax(1).gather(1, ids.clamp(max=special.end - 1))[:, 0]
        timed.append(TimedTokens([float(STRIDE * x) for x in path], probabilities.tolist()))
    return timed


def smoothed(weights: Tensor) -> Tensor:
    """One matrix of the weights of several heads: standardized over the tokens, and filtered over time.

    Args:
        weights: (heads, T, S).

    Returns:
        (T, S).
    """
    weights = weights / weights.sum(-1, keepdim=True).clamp(min=1e-12)
    deviation, mean = torch.std_mean(weights, -2, keepdim=True, unbiased=False)
    standard = (weights - mean) / deviation.clamp(min=1e-12)
    half = SMOOTHED // 2
    if standard.shape[-1] > half:
        standard = functional.pad(standard, (half, half), mode="reflect").unfold(-1, SMOOTHED, 1).median(-1).values
    return standard.mean(0)


def warp(costs: np.ndarray[Any, np.dtype[np.float64]]) -> list[int]:
    """The monotonic path of least cost through a matrix: the column at which each row starts.

    Args:
        costs: (T, S).

    Returns:
        T columns, which never fall.
    """
    rows, columns = costs.shape
    # By antidiagonals, whose entries depend on the two before them: total[i + 1] is that of row i, column d - i.
    last, before = np.full(rows + 1, np.inf), np.full(rows + 1, np.inf)
    moves = np.zeros((rows + columns - 1, rows), np.int8)
    for d in range(rows + columns - 1):
        i = np.arange(max(0, d - columns + 1), min(rows, d + 1))
        diagonal, above, left = before[i], last[i], last[i + 1]
        if d == 0:
            diagonal = np.zeros(1)
        move = np.where((diagonal < above) & (diagonal < left), 0, np.where(above < left, 1, 2))
        best = np.choose(move, [diagonal, above, left])
        total = np.full(rows + 1, np.inf)
        total[i + 1] = costs[i, d - i] + best
        moves[d, i] = move
        before, last = last, total
    starts = [0] * rows
    i, j = rows - 1, columns - 1
    while i > 0 or j > 0:
        starts[i] = j
        move = moves[i + j, i] if i and j else (2 if not i else 1)
        i, j = i - (move != 2), j - (move != 1)
    starts[0] = 0
    return starts


def words_of(
    tokenizer: Any, text: Sequence[int], timed: TimedTokens, language: str | None, offset: float
) -> list[tuple[Word, int]]:
    """Words with their times.

    Args:
        tokenizer: of the model.
        text: tokens without times.
        timed: when each was said.
        language: code; those without spaces have a word for each whole character.
        offset: of the window, in frames.

    Returns:
        Each word, times in seconds, and the number of its tokens.
    """
    words: list[tuple[Word, int]] = []
    for piece in _pieces(tokenizer, text, spaced=language not in UNSPACED):
        spoken = piece.spoken
        start, end = timed.starts[spoken.start], timed.starts[spoken.stop]
        probability = sum(timed.probabilities[spoken.start : spoken.stop]) / len(spoken)
        word = Word(piece.text, (offset + start) / FRAME_RATE, (offset + end) / FRAME_RATE, probability)
        words.append((word, piece.tokens))
    return words


class _Piece(NamedTuple):
    """A word with the space before it, or a whole character.

    Args:
        text: with its punctuation.
        tokens: their number, those of punctuation included.
        spoken: the tokens without punctuation, whose attention goes on to the next sound.
    """

    text: str
    tokens: int
    spoken: range


def _pieces(tokenizer: Any, text: Sequence[int], *, spaced: bool) -> list[_Piece]:
    pieces: list[_Piece] = []
    first = 0
    for last in range(1, len(text) + 1):
        content = tokenizer.decode(list(text[first:last]))
        if "\ufffd" in content and last < len(text):
            continue  # a character that goes on
        piece = _Piece(content, last - first, range(first, last))
        first = last
        before, mark = pieces[-1] if pieces else None, content.strip()
        if before is not None and mark and mark in AFTER:
            pieces[-1] = before._replace(text=before.text + content, tokens=before.tokens + piece.tokens)
        elif before is not None and before.text.strip() and before.text.strip() in BEFORE:
            pieces[-1] = piece._replace(text=before.text + content, tokens=before.tokens + piece.tokens)
        elif before is not None and spaced and mark and not content.startswith(" "):
            spoken = range(before.spoken.start, last)
            pieces[-1] = _Piece(before.text + content, before.tokens + piece.tokens, spoken)
        else:
            pieces.append(piece)
    return pieces


def at_silence(words: Sequence[Word], loud: Activity) -> list[Word]:
    """Words whose times do not reach into or across pauses: after one, a word starts where the sound starts.

    A word whose time spans a pause is where most of its sound is, before or after the pause.

    Args:
        words: in order.
        loud: which frames of the whole sound hold sound.

    Returns:
        As many words.
    """
    fixed: list[Word] = []
    for word in words:
        start, end = (min(round(x * FRAME_RATE), len(loud)) for x in (word.start, word.end))
        earliest = round(fixed[-1].end * FRAME_RATE) if fixed else 0
        start = max(start, earliest)
        end = max(end, start)
        sounding = np.flatnonzero(loud[start:end])
        if len(sounding):
            runs = np.split(sounding, np.flatnonzero(np.diff(sounding) > INNER_PAUSE) + 1)
            run = max(runs, key=len)
            end = end if run is runs[-1] else start + int(run[-1]) + LEAST_PAUSE + 1
            first, last = start + int(run[0]), start + int(run[-1]) + 1
            first = first if first > start else _onset(loud, start, max(earliest, start - LOOK_BACK))
            start, end = first, last if end - last >= LEAST_PAUSE else end
        fixed.append(word._replace(start=start / FRAME_RATE, end=end / FRAME_RATE))
    return fixed


def _onset(loud: Activity, start: int, earliest: int) -> int:
    """Where the sound around a frame starts, if a pause is before it; else the frame."""
    onset = start
    while onset > earliest and loud[onset - 1]:
        onset -= 1
    pause = loud[max(0, onset - LEAST_PAUSE) : onset]
    return onset if onset > earliest and not pause.any() else start
