"""Temperature scaling: one number that makes confidences honest without changing a prediction."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike
from scipy.optimize import brentq
from scipy.special import softmax
from torch import Tensor

from hf_logitmix.metrics import Floats, as_logits_and_labels

# Where the likelihood has no maximum (every prediction right, or worse than chance) the nearest of these is given.
_LOWEST, _HIGHEST = 1e-3, 1e3


def fit_temperature(logits: ArrayLike | Tensor, labels: ArrayLike | Tensor) -> float:
    r"""The temperature T > 0 that minimises the NLL of :math:`\mathrm{softmax}(z / T)` (Guo et al., 2017).

    The NLL is convex in :math:`\beta = 1/T`, so its slope, the mean of :math:`E_p[z] - z_y`, has one root, which
    Brent's method finds. Fit on data that is neither trained on nor reported on; see `cross_fit`.

    Args:
        logits: [N, K], K >= 2.
        labels: [N] class ids.

    Returns:
        T, kept within [0.001, 1000]: the bounds stand for data without a finite optimum, such as no wrong prediction.

    Raises:
        ValueError: as `hf_logitmix.metrics.calibration_metrics`.
    """
    z, y = as_logits_and_labels(logits, labels)
    z = z - z.max(1, keepdims=True)
    rows = np.arange(len(y))

    def slope(log_beta: float) -> float:
        p = softmax(np.exp(log_beta) * z, axis=1)
        return float(((p * z).sum(1) - z[rows, y]).mean())

    low, high = -np.log(_HIGHEST), -np.log(_LOWEST)
    if slope(low) >= 0:
        return _HIGHEST
    if slope(high) <= 0:
        return _LOWEST
    return float(np.exp(-brentq(slope, low, high, xtol=1e-10)))


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
    shuffled = np.random.default_rng(seed).permutation(len(y))
    by_class = shuffled[np.argsort(y[shuffled], kind="stable")]
    half = np.empty(len(y), dtype=bool)
    half[by_class] = np.arange(len(y)) % 2 == 0
    scaled = np.empty_like(z)
    for part in (half, ~half):
        scaled[part] = z[part] / fit_temperature(z[~part], y[~part])
    return scaled
