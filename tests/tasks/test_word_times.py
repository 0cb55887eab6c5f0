"""Word times: dynamic time warping, words of tokens, and the silence around words."""

import itertools
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from regard.tasks.speech_segments import Span, split_window
from regard.tasks.transcript import Word
from regard.tasks.word_times import TimedTokens, at_silence, smoothed, warp, words_of

SPECIAL = SimpleNamespace(first_time=100)


def cheapest(costs: np.ndarray) -> float:
    """The least cost of a monotonic path, by the plain recursion."""
    total = np.full((len(costs) + 1, costs.shape[1] + 1), np.inf)
    total[0, 0] = 0
    for i, j in itertools.product(range(len(costs)), range(costs.shape[1])):
        total[i + 1, j + 1] = costs[i, j] + min(total[i, j], total[i, j + 1], total[i + 1, j])
    return total[-1, -1]


@pytest.mark.parametrize("shape", [(1, 1), (1, 7), (5, 1), (3, 11), (7, 7), (6, 4)])
def test_the_path_is_the_cheapest(shape: tuple[int, int]) -> None:
    costs = np.random.default_rng(0).standard_normal(shape)
    starts = warp(costs)
    assert len(starts) == shape[0]
    assert starts[0] == 0
    assert starts == sorted(starts)
    # A row goes on until the next one starts, there or a column before.
    ends = [*starts[1:], shape[1]]
    best = np.inf
    for shared in itertools.product((0, 1), repeat=shape[0] - 1):
        cost = 0.0
        for i, start in enumerate(starts):
            end = max(start + 1, ends[i] + (shared[i] if i < len(shared) else 0))
            cost += costs[i, start : min(end, shape[1])].sum()
        best = min(best, cost)
    assert abs(best - cheapest(costs)) < 1e-9


def test_a_diagonal_is_followed() -> None:
    weights = torch.full((2, 4, 40), 0.001)
    for i, (start, end) in enumerate(((0, 8), (8, 20), (20, 28), (28, 40))):
        weights[:, i, start:end] = 1.0
    starts = warp(-smoothed(weights).double().numpy())
    assert all(abs(start - expected) <= 1 for start, expected in zip(starts, (0, 8, 20, 28), strict=True))


class Letters:
    """A tokenizer of single characters."""

    def decode(self, ids: list[int]) -> str:
        return "".join(map(chr, ids))


def test_words_have_the_times_of_their_tokens() -> None:
    text = " It's on, (or) off."
    timed = TimedTokens([10.0 * i for i in range(len(text) + 1)], [0.5] * len(text))
    words = words_of(Letters(), list(map(ord, text)), timed, "en", offset=100.0)
    assert [word.text for word, _ in words] == [" It's", " on,", " (or)", " off."]
    assert [count for _, count in words] == [5, 4, 5, 5]
    # Without punctuation, whose attention is at the next sound.
    assert (words[1][0].start, words[1][0].end) == ((100 + 50) / 100, (100 + 80) / 100)
    assert (words[2][0].start, words[2][0].end) == ((100 + 110) / 100, (100 + 130) / 100)
    assert words[0][0].probability == 0.5
    characters = words_of(Letters(), list(map(ord, "一二。三")), TimedTokens([0.0] * 5, [1.0] * 4), "zh", 0)
    assert [word.text for word, _ in characters] == ["一", "二。", "三"]


def test_after_a_pause_a_word_starts_where_the_sound_does() -> None:
    loud = np.zeros(300, bool)
    loud[100:150] = loud[200:260] = True
    early, late = Word("a", 0.5, 1.55, 1.0), Word("b", 2.2, 2.9, 1.0)
    first, second = at_silence([early, late], loud)
    assert (first.start, first.end) == (1.0, 1.55)  # 50 ms behind the sound are no pause
    assert (second.start, second.end) == (2.0, 2.6)
    silent = Word("c", 0.2, 0.4, 1.0)
    assert at_silence([silent], loud) == [silent]
    within = Word("d", 1.2, 1.4, 1.0)
    assert at_silence([Word("a", 1.0, 1.2, 1.0), within], loud)[1] == within


def test_a_word_does_not_span_a_pause() -> None:
    loud = np.zeros(400, bool)
    loud[100:150] = loud[200:260] = True
    before, after = at_silence([Word("before", 1.0, 2.1, 1.0), Word("after", 2.1, 2.6, 1.0)], loud)
    assert (before.start, before.end) == (1.0, 1.5)
    assert (after.start, after.end) == (2.0, 2.6)
    [late] = at_silence([Word("late", 1.4, 2.5, 1.0)], loud)
    assert (late.start, late.end) == (2.0, 2.5)
    loud[150:172] = loud[178:200] = True  # a closure of 60 ms is no pause
    assert at_silence([Word("one", 1.0, 2.4, 1.0)], loud) == [Word("one", 1.0, 2.4, 1.0)]


def test_windows_are_split_at_pairs_of_times() -> None:
    def split(*tokens: int, frames: int = 500) -> tuple[list[Span], int]:
        return split_window(tokens, SPECIAL, frames, times=True)

    assert split(100, 1, 2, 150, 150, 3, 200) == ([Span(0, 100, [100, 1, 2, 150]), Span(100, 200, [150, 3, 200])], 500)
    assert split(100, 1, 150, 150, 3) == ([Span(0, 100, [100, 1, 150])], 100)  # the rest is decoded again
    assert split(100, 1, 150) == ([Span(0, 100, [100, 1, 150])], 500)
    assert split(100, 1) == ([Span(0, 500, [100, 1])], 500)
    assert split_window([1, 2], SPECIAL, 70, times=False) == ([Span(0, 70, [1, 2])], 70)
