"""Rules of time tokens against the transformers package's, and by hand."""

from types import SimpleNamespace

import pytest
import torch

from regard.decode.timestamps import TimestampRule

EOS, FIRST, SIZE = 5, 9, 20  # no_timestamps is 8


def test_rules_are_those_of_transformers() -> None:
    processing = pytest.importorskip("transformers.generation.logits_process")
    config = SimpleNamespace(
        no_timestamps_token_id=FIRST - 1, eos_token_id=EOS, bos_token_id=EOS, max_initial_timestamp_index=4,
        is_multilingual=False,
    )  # fmt: skip
    theirs = processing.WhisperTimeStampLogitsProcessor(config, begin_index=1)
    rule = TimestampRule(first=FIRST, eos=EOS, max_initial=4)
    draw = torch.Generator().manual_seed(0)
    for _ in range(200):
        # A text by the rules, so that it could have been written.
        tokens: list[int] = []
        scores = torch.randn(SIZE, generator=draw) * 2
        for _ in range(6):
            history = torch.tensor([7, *tokens])[None]
            mine = rule(scores.index_fill(0, torch.tensor([FIRST - 1]), -torch.inf)[None, None], history[:, None, 1:])
            other = theirs(history, scores[None].clone())
            assert torch.equal(mine[0, 0], other[0]), tokens
            tokens.append(int(mine[0, 0].softmax(0).multinomial(1, generator=draw)))
            if tokens[-1] == EOS:
                break
            scores = torch.randn(SIZE, generator=draw) * 2


def test_a_text_starts_with_a_time_and_times_come_in_pairs() -> None:
    rule = TimestampRule(first=FIRST, eos=EOS, max_initial=2)
    flat = torch.zeros(1, 1, SIZE)

    def allowed(*tokens: int) -> list[int]:
        scores = rule(flat.index_fill(-1, torch.arange(FIRST), 9.0), torch.tensor([[tokens]], dtype=torch.int64))
        return scores[0, 0].isfinite().nonzero()[:, 0].tolist()

    assert allowed() == [9, 10, 11]
    assert allowed(9) == list(range(9))  # after a start, text
    assert allowed(9, 1) == [*range(9), *range(10, 20)]  # a segment ends later than it starts
    assert allowed(9, 1, 12) == [*range(5, 9), *range(12, 20)]  # after an end, a start or the end of the text
    assert allowed(9, 1, 12, 13) == list(range(9))


def test_a_time_follows_where_times_together_are_most_probable() -> None:
    rule = TimestampRule(first=FIRST, eos=EOS)
    scores = torch.zeros(1, 1, SIZE)
    scores[..., 3] = 2.0  # e^2 < 10 times of 1 each
    assert rule(scores, torch.tensor([[[9, 1]]]))[0, 0, :9].isinf().all()
    scores[..., 3] = 3.0
    assert rule(scores, torch.tensor([[[9, 1]]]))[0, 0, :9].isfinite().all()
