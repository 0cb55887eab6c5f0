"""Attention weights drawn as text."""

from torch import Tensor

from regard.errors import ShapeError

SHADES = "·░▒▓█"


def shade(weights: Tensor) -> str:
    """Draw a weight matrix as text: one line per row, one character per column, darker for larger weights.

    Each weight is drawn relative to the largest one, rounded to quarters: · ░ ▒ ▓ █.

    Args:
        weights: floats >= 0 or booleans, (rows, columns), of one sequence and head, as in `weights[0, 0]`.

    Returns:
        The text.

    Raises:
        ShapeError: not two dimensions, or a number that is negative or not finite.

    >>> print(shade(torch.tensor([[1.0, 0.0, 0.0], [0.25, 0.5, 0.25], [0.0, 0.25, 0.75]])))
    █··
    ░▒░
    ·░▓
    """
    if weights.dim() != 2:
        raise ShapeError(
            f"shade: got shape {tuple(weights.shape)}; expected (rows, columns): select one sequence and head, as in "
            "weights[0, 0]"
        )
    shown = weights.detach().double()
    if not bool((shown.isfinite() & (shown >= 0)).all()):
        raise ShapeError(
            f"shade: got numbers from {float(shown.min()):g} to {float(shown.max()):g}; expected finite numbers >= 0; "
            "for scores and biases draw their exp()"
        )
    largest = shown.max() if shown.numel() else shown.new_zeros(())
    quarters = (4 * shown / largest.clamp(min=1e-300)).round().long()
    return "\n".join("".join(SHADES[x] for x in row) for row in quarters.tolist())
