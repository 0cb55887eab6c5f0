"""Paired bootstrap of two systems' scores on the same groups of records."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

RESAMPLES = 10_000
PERCENTILES = (2.5, 97.5)


class Difference(NamedTuple):
    """Difference of two mean scores, and its 95% confidence interval."""

    mean: float
    low: float
    high: float


def paired_difference(before: Sequence[float], after: Sequence[float], *, seed: int = 0) -> Difference:
    """Difference of the means of paired scores, with a bootstrap interval over the pairs.

    Args:
        before, after: scores of the same groups of records, at least one.
        seed: of the resampling.

    Returns:
        The mean of after - before, and the interval that holds 95% of the means of resampled pairs.

    Source: Koehn 2004, "Statistical Significance Tests for Machine Translation Evaluation", section 3.2.
    """
    differences = np.asarray(after, np.float64) - np.asarray(before, np.float64)
    chosen = np.random.default_rng(seed).integers(len(differences), size=(RESAMPLES, len(differences)))
    low, high = np.percentile(differences[chosen].mean(1), PERCENTILES)
    return Difference(float(differences.mean()), float(low), float(high))
