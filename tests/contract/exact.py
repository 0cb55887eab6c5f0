"""Entmax in 40 decimal digits, from its definition: slow, for few keys."""

from collections.abc import Sequence
from decimal import Decimal, localcontext

DIGITS = 40
HALVINGS = 120  # of an interval of logarithms no longer than 12: to 1e-35


def weights(scores: Sequence[float], alpha: float) -> list[Decimal]:
    """Weights of a row of scores, exactly as given, that sum to 1 to some 35 digits."""
    with localcontext(prec=DIGITS):
        return _weights([Decimal(x) for x in scores], Decimal(alpha) - 1)


def gradients(scores: Sequence[float], alpha: float, incoming: Sequence[float]) -> tuple[list[Decimal], Decimal]:
    """The gradients of scores and alpha, from those of the weights."""
    with localcontext(prec=DIGITS):
        z, slope, y = [Decimal(x) for x in scores], Decimal(alpha) - 1, [Decimal(x) for x in incoming]
        w = _weights(z, slope)
        # p = [slope z - threshold]_+ ^ (1 / slope): dp = p^(1 - slope) (dz - d threshold), and the sum of dp is 0.
        g = [p ** (1 - slope) if p > 0 else Decimal(0) for p in w]
        mean = sum(a * b for a, b in zip(g, y, strict=True)) / sum(g)
        step = Decimal("1e-11")
        more, less = (_weights(z, slope + sign * step) for sign in (1, -1))
        change = sum(a * (p - q) for a, p, q in zip(y, more, less, strict=True))
        return [a * (b - mean) for a, b in zip(g, y, strict=True)], change / (2 * step)


def _weights(z: list[Decimal], slope: Decimal) -> list[Decimal]:
    top = max(z)

    def at(logarithm: Decimal) -> list[Decimal]:  # of the largest weight
        root = (slope * logarithm).exp()
        above = (root + slope * (x - top) for x in z)
        return [(x.ln() / slope).exp() if x > 0 else Decimal(0) for x in above]

    low, high = -Decimal(len(z)).ln() - Decimal("1e-36"), Decimal(0)
    for _ in range(HALVINGS):
        middle = (low + high) / 2
        low, high = (low, middle) if sum(at(middle)) >= 1 else (middle, high)
    # Between the ends weights may jump still, where alpha is large: they are mixed such that they sum to 1.
    less, more = at(low), at(high)
    share = (1 - sum(less)) / (sum(more) - sum(less)) if sum(more) > sum(less) else Decimal(0)
    return [p + share * (q - p) for p, q in zip(less, more, strict=True)]
