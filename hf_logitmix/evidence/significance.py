"""Tests of paired differences over seeds, and their correction for the number of methods."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence

from scipy.stats import t

from hf_logitmix.calibration.differences import Difference

LEVEL = 0.95  # of intervals; a difference counts where p is below 1 - LEVEL


def paired_t(apart: Sequence[float]) -> tuple[Difference, float | None]:
    """The mean of paired differences with its interval, and the p-value of the two-sided t-test that it is 0.

    Of a single difference the interval has no ends (NaN), and p is None.
    """
    mean, count = statistics.fmean(apart), len(apart)
    if count == 1:
        return Difference(mean, math.nan, math.nan), None
    error = statistics.stdev(apart) / math.sqrt(count)
    if error == 0:
        return Difference(mean, mean, mean), float(mean == 0)
    reach = float(t.ppf((1 + LEVEL) / 2, count - 1)) * error
    return Difference(mean, mean - reach, mean + reach), float(2 * t.sf(abs(mean) / error, count - 1))


def holm(p: Sequence[float]) -> list[float]:
    """p-values of a family of tests, corrected (Holm, A simple sequentially rejective multiple test procedure, 1979).

    The k-th smallest of m is multiplied by m - k + 1; none is below a smaller one before it, or above 1.
    """
    order = sorted(range(len(p)), key=lambda number: p[number])
    found, least = [0.0] * len(p), 0.0
    for rank, number in enumerate(order):
        least = max(least, min(1.0, (len(p) - rank) * p[number]))
        found[number] = least
    return found
