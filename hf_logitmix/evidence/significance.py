"""Tests of paired differences over seeds, and their correction for the number of methods."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence

from scipy.stats import t

from hf_logitmix.calibration.differences import Difference

_ROUNDING = 1e-12  # spreads below it come of rounding alone
LEVEL = 0.95  # of intervals; a difference counts where p is below 1 - LEVEL


def paired_t(apart: Sequence[float]) -> tuple[Difference, float | None]:
    """The mean of paired differences with its interval, and the p-value of the two-sided t-test that it is 0.

    The interval has no ends (NaN), and p is None, where nothing is known of how differences are spread: of a single
    one, and of those that are all the same, as shares of few examples may be. Of differences that are all 0, p is 1.
    """
    mean, count = statistics.fmean(apart), len(apart)
    error = statistics.stdev(apart) / math.sqrt(count) if count > 1 else 0.0
    if math.isclose(error, 0, abs_tol=_ROUNDING):
        return Difference(mean, math.nan, math.nan), 1.0 if count > 1 and math.isclose(
            mean, 0, abs_tol=_ROUNDING
        ) else None
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
