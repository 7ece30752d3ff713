"""Temperature scaling: one number that makes confidences honest without changing a prediction."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike
from scipy.optimize import brentq
from scipy.special import softmax
from torch import Tensor
from transformers.utils import logging

from hf_logitmix.calibration.metrics import Floats, as_logits_and_labels

logger = logging.get_logger(__name__)

_FAR = 1e3  # times the smallest gap between logits for a beta that is as good as infinite
_ROUNDING = 4 * np.finfo(np.float64).eps


def fit_temperature(logits: ArrayLike | Tensor, labels: ArrayLike | Tensor) -> float:
    r"""The temperature T > 0 that minimises the NLL of :math:`\mathrm{softmax}(z / T)` (Guo et al., 2017).

    The NLL is convex in :math:`\beta = 1/T`, so its slope, the mean of :math:`E_p[z] - z_y`, has at most one root.
    Brent's method finds it, however large or small it is: logits times c have a temperature times c. Fit on data that
    is neither trained on nor reported on; see `cross_fit`.

    Without a root no T is best, and a line of the log says which answer is given:

    * Where every prediction is right the NLL falls as T goes to 0: a thousandth of the smallest gap between an
      example's highest logit and another, which makes every prediction as good as certain.
    * Where labels have on average no higher logits than other classes, it falls as T grows: a thousand times the
      largest gap, which makes all probabilities as good as even.

    Args:
        logits: [N, K], K >= 2.
        labels: [N] class ids.

    Returns:
        T. Where the logits of each example are all equal, and every T is as good, 1.

    Raises:
        ValueError: as `hf_logitmix.calibration.metrics.calibration_metrics`.
    """
    z, y = as_logits_and_labels(logits, labels)
    z = z - z.max(1, keepdims=True)
    if not z.any():
        return 1.0
    largest = float(-z.min())
    z /= largest
    own = z[np.arange(len(y)), y]

    def slope(beta: float) -> float:
        return float(((softmax(beta * z, axis=1) * z).sum(1) - own).mean())

    if slope(0.0) >= -_ROUNDING:
        logger.warning_once("The logits are no better than chance: no temperature is best, a very high one is given.")
        return largest * _FAR
    if not own.any():
        logger.warning_once("Every prediction is right: no temperature is best, a very low one is given.")
        return largest * float(-z[z < 0].max()) / _FAR
    low = high = 1.0
    while slope(low) > 0:
        low /= 16
    while slope(high) < 0:
        high *= 16
    return largest / float(
        np.exp(brentq(lambda log_beta: slope(np.exp(log_beta)), np.log(low), np.log(high), xtol=1e-12))
    )


def cross_fit(logits: ArrayLike | Tensor, labels: ArrayLike | Tensor, seed: int = 0) -> Floats:
    """Logits scaled by temperatures that have not seen them: two halves, each scaled by the T of the other.

    The halves are drawn with ``seed``, class by class, so that both have every class that has two examples.

    Returns:
        [N, K] in the order that came in.

    Raises:
        ValueError: as `fit_temperature`, and for fewer than two examples.
    """
    z, y = as_logits_and_labels(logits, labels)
    if len(y) < 2:
        raise ValueError("one example cannot be split into two halves: pass at least two.")
    # not scikit-learn's StratifiedKFold, which warns of a class with one example and refuses data of such classes alone
    shuffled = np.random.default_rng(seed).permutation(len(y))
    by_class = shuffled[np.argsort(y[shuffled], kind="stable")]
    half = np.empty(len(y), dtype=bool)
    half[by_class] = np.arange(len(y)) % 2 == 0
    scaled = np.empty_like(z)
    for part in (half, ~half):
        scaled[part] = z[part] / fit_temperature(z[~part], y[~part])
    return scaled
