"""Temperature scaling: one number that makes confidences honest without changing a prediction."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike
from scipy.optimize import brentq
from scipy.special import softmax
from torch import Tensor
from transformers.utils import logging

from hf_logitmix.calibration.rows import Floats, Rows, as_float64, as_logits

logger = logging.get_logger(__name__)

_FAR = 1e3  # times the smallest gap between logits for a beta that is as good as infinite
_ROUNDING = 4 * np.finfo(np.float64).eps


class Temperature(float):
    """A temperature: a number, and a scaler with `apply`, as every ``fit_...`` gives one."""

    __slots__ = ()

    def apply(self, logits: ArrayLike | Tensor) -> Floats:
        """Logits [N, K] over the temperature, in float64."""
        return as_float64(as_logits(logits)) / float(self)


def fit_temperature(logits: ArrayLike | Tensor, labels: ArrayLike | Tensor) -> Temperature:
    r"""The temperature T > 0 that minimises the NLL of :math:`\mathrm{softmax}(z / T)` (Guo et al., 2017).

    The NLL is convex in :math:`\beta = 1/T`, so its slope, the mean of :math:`E_p[z] - z_y`, has at most one root.
    Brent's method finds it, however large or small it is: logits times c have a temperature times c. Fit on data that
    is neither trained on nor reported on; see `cross_fit`.

    Without a root no T is best, and a line of the log says which answer is given:

    * Where every prediction is right the NLL falls as T goes to 0: a thousandth of the smallest gap between an
      example's highest logit and another, which makes every prediction as good as certain. `fit_ts_mix` has an
      optimum there.
    * Where labels have on average no higher logits than other classes, it falls as T grows: a thousand times the
      largest gap, which makes all probabilities as good as even.

    Args:
        logits: [N, K], K >= 2.
        labels: [N] class ids; or [N, K] rows that sum to 1, with :math:`\sum_k r_k z_k` in the place of :math:`z_y`.

    Returns:
        T, a number. Where the logits of each example are all equal, and every T is as good, 1.

    Raises:
        ValueError: as `hf_logitmix.calibration.metrics.calibration_metrics`.
    """
    return Temperature(_fit(Rows.of(logits, labels)))


def fit_ts_mix(logits: ArrayLike | Tensor, labels: ArrayLike | Tensor) -> Temperature:
    r"""`fit_temperature` on Laplace-smoothed labels: one more example, whose label is shared by all classes.

    The row of an example with label y is :math:`(N [k = y] + 1/K) / (N + 1)`. So a finite T > 0 is best where every
    prediction is right, and it falls as N grows; with a few hundred examples and some errors it is nearly that of
    `fit_temperature`.

    Args:
        logits: [N, K], K >= 2.
        labels: [N] class ids, or [N, K] rows that sum to 1.

    Returns:
        T, a number. As in `fit_temperature` where labels have no higher logits than other classes.

    Raises:
        ValueError: as `hf_logitmix.calibration.metrics.calibration_metrics`.
    """
    rows = Rows.of(logits, labels)
    return Temperature(_fit(rows, smoothing=1 / (len(rows) + 1)))


def cross_fit(logits: ArrayLike | Tensor, labels: ArrayLike | Tensor, seed: int = 0) -> Floats:
    """Logits scaled by temperatures that have not seen them: two halves, each scaled by the T of the other.

    The halves are drawn with ``seed``, class by class, so that both have every class that has two examples.

    Returns:
        [N, K] in the order that came in.

    Raises:
        ValueError: as `fit_temperature`, and for fewer than two examples.
    """
    rows = Rows.of(logits, labels)
    return rows.divided_by(cross_fit_temperatures(rows, seed)).whole()


def cross_fit_temperatures(rows: Rows, seed: int = 0) -> Floats:
    """[N] the temperature of each row, fitted on the half that it is not in."""
    if len(rows) < 2:
        raise ValueError("one example cannot be split into two halves: pass at least two.")
    # not scikit-learn's StratifiedKFold, which warns of a class with one example and refuses data of such classes alone
    shuffled = np.random.default_rng(seed).permutation(len(rows))
    by_class = shuffled[np.argsort(rows.labels[shuffled], kind="stable")]
    half = np.empty(len(rows), dtype=bool)
    half[by_class] = np.arange(len(rows)) % 2 == 0
    temperatures = np.empty(len(rows))
    for part in (half, ~half):
        temperatures[part] = _fit(rows.take(np.flatnonzero(~part)))
    return temperatures


def _fit(rows: Rows, smoothing: float = 0.0) -> float:
    """T for labels of which a share ``smoothing`` is spread over all classes."""
    largest, smallest = 0.0, np.inf  # gaps between an example's highest logit and another
    for block in rows.blocks():
        gaps = block.logits.max(1, keepdims=True) - block.logits
        largest = max(largest, float(gaps.max()))
        smallest = min(smallest, float(gaps[gaps > 0].min(initial=np.inf)))
    if not largest:
        return 1.0

    own = np.empty(len(rows))  # of each example, the logit of its label over the largest gap; its highest logit is 0
    for of, z, y, soft in rows.blocks():
        z -= z.max(1, keepdims=True)
        z /= largest
        labelled = z[np.arange(len(y)), y] if soft is None else np.einsum("ij,ij->i", soft, z)
        own[of] = (1 - smoothing) * labelled + smoothing * z.mean(1)
    mean_own = float(own.mean())

    def slope(beta: float) -> float:
        total = 0.0
        for block in rows.blocks():
            z = block.logits
            z -= z.max(1, keepdims=True)
            z /= largest
            total += float((softmax(beta * z, axis=1) * z).sum())
        return total / len(rows) - mean_own

    if slope(0.0) >= -_ROUNDING:
        logger.warning_once("The logits are no better than chance: no temperature is best, a very high one is given.")
        return largest * _FAR
    if not own.any():
        logger.warning_once("Every prediction is right: no temperature is best, a very low one is given.")
        return smallest / _FAR
    low = high = 1.0
    while slope(low) > 0:
        low /= 16
    while slope(high) < 0:
        high *= 16
    return largest / float(
        np.exp(brentq(lambda log_beta: slope(np.exp(log_beta)), np.log(low), np.log(high), xtol=1e-12))
    )
