"""Weights as text, shaded by size."""

from torch import Tensor

from regard.errors import ShapeError

SHADES = "·░▒▓█"


def shade(weights: Tensor) -> str:
    """A map of numbers as text: a line for each row, a character for each column, darker for more.

    Each number is drawn as a share of the largest one, rounded to quarters: · ░ ▒ ▓ █.

    Args:
        weights: numbers >= 0 or booleans, (rows, columns): of one sequence and head, as in `weights[0, 0]`.

    Returns:
        The picture.

    Raises:
        ShapeError: not two dimensions, or a number that is negative or not finite.

    >>> print(shade(torch.tensor([[1.0, 0.0, 0.0], [0.25, 0.5, 0.25], [0.0, 0.25, 0.75]])))
    █··
    ░▒░
    ·░▓
    """
    if weights.dim() != 2:
        raise ShapeError(
            f"shade: got shape {tuple(weights.shape)}; expected (rows, columns): pick one sequence and head, as in "
            "weights[0, 0]"
        )
    shown = weights.detach().double()
    if not bool((shown.isfinite() & (shown >= 0)).all()):
        raise ShapeError(
            f"shade: got numbers from {float(shown.min()):g} to {float(shown.max()):g}; expected finite ones >= 0: "
            "draw scores and biases by their exp()"
        )
    largest = shown.max() if shown.numel() else shown.new_zeros(())
    quarters = (4 * shown / largest.clamp(min=1e-300)).round().long()
    return "\n".join("".join(SHADES[x] for x in row) for row in quarters.tolist())
