"""Calibration error without bins."""

from __future__ import annotations

import numpy as np
from scipy.fft import dct, idct
from scipy.optimize import brentq

from hf_logitmix.calibration.rows import Floats

_CELLS = 2**14


def smooth_ece(confidence: Floats, hits: Floats) -> float:
    r"""Smooth ECE (Blasiok and Nakkiran, 2024): the width :math:`\sigma` that equals the error smoothed with it.

    .. math:: \mathrm{smECE}_\sigma = \int_0^1 \Big| \frac1N \sum_i (y_i - f_i)\, K_\sigma(t, f_i) \Big| \mathrm dt

    with a Gaussian kernel K of standard deviation :math:`\sigma`, reflected at 0 and 1, which is a multiplication of
    cosine coefficients. The error falls as :math:`\sigma` grows, so that there is one such width. Confidences are
    rounded to the middle of one of 16,384 cells.

    Args:
        confidence: [N] f, in [0, 1].
        hits: [N] y, 1 where an example is right, else 0.
    """
    cell = np.minimum((confidence * _CELLS).astype(np.int64), _CELLS - 1)
    residual = np.bincount(cell, weights=hits - confidence, minlength=_CELLS) / len(cell)
    waves, frequency = dct(residual), np.pi * np.arange(_CELLS)

    def error(width: float) -> float:
        return float(np.abs(idct(waves * np.exp(-((width * frequency) ** 2) / 2))).sum())

    return float(brentq(lambda width: error(width) - width, 0.0, 1.0, xtol=1e-10))
