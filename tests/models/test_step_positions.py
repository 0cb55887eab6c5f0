"""Position embeddings of decoding steps."""

import pytest
import torch

from regard.errors import ShapeError
from regard.layers.positions import LearnedPositions, SinusoidalPositions
from regard.models.step_positions import StepPositions


@torch.inference_mode()
def test_any_position_has_its_embedding() -> None:
    sinusoidal, learned = SinusoidalPositions(6), LearnedPositions(70, 6)
    for module, max_length in ((sinusoidal, None), (learned, 70)):
        positions, nothing = StepPositions(module, 6, max_length), torch.zeros(1, 1, 6)
        for position in (0, 1, 63, 64, 69, 3):
            assert torch.equal(positions.at(position, nothing), module(nothing, position)[0, 0])


@torch.inference_mode()
def test_a_position_beyond_the_learned_ones_is_refused() -> None:
    positions, like = StepPositions(LearnedPositions(5, 6), 6, 5), torch.zeros(1)
    positions.at(4, like)
    with pytest.raises(ShapeError, match="0 to 4"):
        positions.at(5, like)
