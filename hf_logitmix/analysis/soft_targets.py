"""The targets that LaMix trains on, from its soft labels."""

from __future__ import annotations

from typing import Any

import numpy as np

from hf_logitmix.calibration.rows import Floats
from hf_logitmix.targets.similarity import as_array


def targets_of(soft: Any, labels: Any, beta: float) -> Floats:
    r"""Of examples as they are, :math:`\beta\, e_y + (1 - \beta)\, p`, [N, K].

    LaMix (Bypassing the Random Input Mixing in Mixup, 2021), equation 10 with partner i = j.

    Args:
        soft: p, [N, K], the global soft labels.
        labels: [N] class ids.
        beta: share of the labels, in [0, 1].
    """
    return mixed_targets(soft, labels, labels, 1.0, beta)


def mixed_targets(soft: Any, labels: Any, partner_labels: Any, lam: Any, beta: float) -> Floats:
    r"""Of blended examples, :math:`\beta (\lambda e_y + (1 - \lambda) e_{y_\pi}) + (1 - \beta)\, p`, [N, K].

    LaMix, equation 10; lam is drawn uniformly for a batch there.

    Args:
        soft: p, [N, K].
        labels, partner_labels: [N] class ids.
        lam: a number or [N].
        beta: share of the labels.

    Raises:
        ValueError: for a beta outside [0, 1].
    """
    if not 0 <= beta <= 1:
        raise ValueError(f"beta={beta} is outside [0, 1]: it is the share of the given labels.")
    p = as_array(soft).astype(float)
    rows, lam = np.eye(p.shape[1]), np.broadcast_to(np.asarray(lam, dtype=float), (len(p),))[:, None]
    local = lam * rows[as_array(labels)] + (1 - lam) * rows[as_array(partner_labels)]
    return beta * local + (1 - beta) * p


def top_targets(targets: Any, count: int = 5) -> Floats:
    """The mean of the largest number of each row, of the second largest, and so on, [min(count, K)].

    LaMix, figure 2.

    Args:
        targets: [N, K].
        count: how many.
    """
    return -np.sort(-as_array(targets).astype(float), axis=1)[:, :count].mean(0)
