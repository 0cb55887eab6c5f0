"""Each architecture learns to copy and to reverse strings that it has not seen; with attention, it finds the letters.

Bar: 99% of the strings exact, and 95% of the letters attended to where they stand, after at most 60 s of one thread.
"""

from typing import Any

import pytest
import torch

from regard.models.registry import build, config_from_plain
from regard.tasks.text_to_text import TextToText
from tests.learn.strings import LONGEST, N, aligned, exact, train

SECONDS = 60  # of CPU time
# One layer of attention with one head, so that "where it looks" is one place.
MADE: dict[str, tuple[str, dict[str, Any], float]] = {
    "transformer": (
        "transformer",
        {
            "embed_dim": 64, "num_heads": 1, "ffn_dim": 128, "encoder_layers": 1, "decoder_layers": 1,
            "norm": "pre", "positions": "learned", "max_length": LONGEST + 1,
        },
        3e-3,
    ),
    "rnn": ("rnn", {"embed_dim": 32, "hidden_dim": 64, "align_dim": 32}, 3e-3),
    "luong": ("luong", {"embed_dim": 32, "hidden_dim": 64, "num_layers": 1}, 3e-3),
    "convs2s": (
        "convs2s",
        {
            "embed_dim": 64, "hidden_dim": 64, "encoder_layers": 2, "decoder_layers": 2, "max_length": LONGEST + 1,
        },
        2e-3,
    ),
}  # fmt: skip


def test_every_architecture_is_here() -> None:
    assert set(MADE) == set(TextToText.models)


@pytest.mark.slow
@pytest.mark.parametrize("task", ["copy", "reverse"])
@pytest.mark.parametrize("kind", MADE)
def test_it_learns(kind: str, task: str) -> None:
    torch.manual_seed(0)
    name, changes, rate = MADE[kind]
    model = build(config_from_plain(name, {"vocabulary": {"size": N}, "dropout": 0.0, **changes}))
    steps = train(model, task, SECONDS, rate)
    assert exact(model, task, 200) >= 0.99, f"after {steps} steps"
    assert aligned(model, task) >= 0.95, f"after {steps} steps"
