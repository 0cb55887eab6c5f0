"""Bootstrap intervals of statistics of evaluated records."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

PERCENTILES = (2.5, 97.5)


class Difference(NamedTuple):
    """Difference of two mean scores, and its 95% confidence interval."""

    mean: float
    low: float
    high: float


def bootstrap_interval(
    count: int, statistic: Callable[[NDArray[np.int64]], NDArray[np.float64]], *, resamples: int, seed: int = 0
) -> tuple[float, float]:
    """95% confidence interval of a statistic of records, from resampling the records with replacement.

    Args:
        count: number of records, at least one.
        statistic: maps indices of records, (resamples, count), to the statistic of each resample, (resamples,).
        resamples: number of resamples.
        seed: of the resampling.

    Returns:
        The bounds: percentiles 2.5 and 97.5 of the statistic over the resamples.

    Source: Efron 1979, "Bootstrap Methods: Another Look at the Jackknife".
    """
    rows = np.random.default_rng(seed).integers(count, size=(resamples, count))
    low, high = np.percentile(statistic(rows), PERCENTILES)
    return float(low), float(high)


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
    low, high = bootstrap_interval(len(differences), lambda i: differences[i].mean(1), resamples=10_000, seed=seed)
    return Difference(float(differences.mean()), low, high)
