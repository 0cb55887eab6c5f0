"""What encoder-decoders are given in tests."""

from torch import Tensor


def lengths_of(source: Tensor, pad: int = 0) -> Tensor:
    """How many tokens of each row (B, S) stand before its padding: (B,)."""
    return (source != pad).sum(1)
