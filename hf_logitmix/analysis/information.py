"""How much a logit still tells of which example it is of."""

from __future__ import annotations

from typing import Any

import numpy as np

from hf_logitmix.calibration.rows import Floats
from hf_logitmix.targets.similarity import as_array


def mutual_information(draws: Any) -> float:
    r"""Between the number of an example and a number that a network makes of it at random, estimated in nats.

    X is uniform on N examples and Y one real number, such as the difference of two logits, which is random because the
    input is augmented. Y given x is taken to be normal, with a mean of its own for each x and one variance for all:

    .. math::
        \mu_x = \frac1L \sum_l y_{lx}, \quad \sigma^2 = \frac1{LN} \sum_{l,x} (y_{lx} - \mu_x)^2, \quad
        \hat I = \log N + \frac1{LN} \sum_{l,x} \Big[ -\frac{(y_{lx} - \mu_x)^2}{2 \sigma^2}
        - \log \sum_{x'} e^{-(y_{lx} - \mu_{x'})^2 / 2 \sigma^2} \Big]

    It lies between 0 (all examples look alike) and log N (each can be told from all others) but for the error of the
    estimate. Müller, Kornblith, Hinton, When Does Label Smoothing Help?, NeurIPS 2019, section 4. Their formula prints
    sums in the place of the means and leaves log N out, though they give the same range; and they average over one
    draw, ours over all L.

    Args:
        draws: [L, N], L draws for each of N examples.

    Returns:
        the estimate.

    Raises:
        ValueError: for fewer than two draws or examples, numbers that are not finite, and draws that do not differ.
    """
    y: Floats = as_array(draws).astype(float)
    if y.ndim != 2 or min(y.shape) < 2:
        raise ValueError(f"draws of shape {y.shape}: pass [L, N] with at least two draws of at least two examples.")
    if not np.isfinite(y).all():
        raise ValueError("draws must be finite, and some are not.")
    mean = y.mean(0)
    variance = ((y - mean) ** 2).mean()
    if variance <= 1e-12 * max(1.0, float((y**2).mean())):
        raise ValueError("draws of an example are all the same, so nothing is random: draw with augmentation.")
    total = 0.0
    for row in y:  # one [N, N] table at a time
        exponents = -((row[:, None] - mean[None]) ** 2) / (2 * variance)
        largest = exponents.max(1)
        total += (np.diag(exponents) - largest - np.log(np.exp(exponents - largest[:, None]).sum(1))).sum()
    return float(np.log(y.shape[1]) + total / y.size)
