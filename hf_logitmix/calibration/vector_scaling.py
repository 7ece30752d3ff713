"""Vector scaling: a factor and a summand for each class."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike
from scipy.optimize import minimize
from torch import Tensor
from transformers.utils import logging

from hf_logitmix.calibration.rows import Floats, Rows, as_float64, as_logits

logger = logging.get_logger(__name__)

_FLAT_ENOUGH, _NEARLY_FLAT = 1e-9, 1e-5  # largest slope at which L-BFGS ends, and above which it is told


@dataclass(frozen=True, eq=False)
class VectorScaling:
    """What `fit_vector_scaling` found.

    Attributes:
        weight: [K].
        bias: [K], with a mean of 0.
    """

    weight: Floats
    bias: Floats

    def apply(self, logits: ArrayLike | Tensor) -> Floats:
        """Logits [N, K] times ``weight`` plus ``bias``, in float64. Predictions may change."""
        return as_float64(as_logits(logits, len(self.weight))) * self.weight + self.bias


def fit_vector_scaling(logits: ArrayLike | Tensor, labels: ArrayLike | Tensor) -> VectorScaling:
    r"""The w and b, 2K numbers, that minimise the NLL of :math:`\mathrm{softmax}(w z + b)` (Guo et al., 2017).

    The NLL is convex in both. L-BFGS minimises it over standardised columns of the logits, so that logits times c have
    w over c and the same b. Fit on data that is neither trained on nor reported on, and on many more than 2K examples.

    Args:
        logits: [N, K], K >= 2.
        labels: [N] class ids, or [N, K] rows that sum to 1.

    Raises:
        ValueError: as `hf_logitmix.calibration.metrics.calibration_metrics`; where a class has no example, so that the
            lower its b the better; and where w and b make every prediction right, so that no finite ones are best.
    """
    rows = Rows.of(logits, labels)
    mean, spread = _columns(rows)
    told = spread > 1e-12 * np.abs(mean)  # a column of one value tells nothing: its factor is 0
    unit = np.where(told, 1 / np.where(told, spread, 1.0), 0.0)
    started = np.concatenate([np.ones(rows.num_classes), np.zeros(rows.num_classes)])
    found = minimize(
        lambda numbers: _loss(numbers, rows, mean, unit),
        started,
        jac=True,
        method="L-BFGS-B",
        options={"maxiter": 10_000, "maxfun": 20_000, "ftol": 1e-14, "gtol": _FLAT_ENOUGH, "maxcor": 20},
    )
    weight, bias = found.x.reshape(2, rows.num_classes)
    scaling = VectorScaling(weight * unit, bias - weight * unit * mean - np.mean(bias - weight * unit * mean))
    if _is_perfect(scaling, rows):
        raise ValueError(
            "vector scaling makes every prediction right on these logits and labels, so that no finite weights are "
            "best: pass more examples, or take fit_ts_mix."
        )
    if np.abs(found.jac).max() > _NEARLY_FLAT:
        logger.warning("fit_vector_scaling stopped before its optimum (%s): more examples would help.", found.message)
    return scaling


def _columns(rows: Rows) -> tuple[Floats, Floats]:
    """[K] mean and standard deviation of each column; refuses a class without an example."""
    mass, total, squares = np.zeros((3, rows.num_classes))
    for _, z, y, soft in rows.blocks():
        mass += np.bincount(y, minlength=rows.num_classes) if soft is None else soft.sum(0)
        total += z.sum(0)
    if not mass.all():
        raise ValueError(
            f"labels have no example of class {int(np.argmin(mass))}: vector scaling needs some of each class; take "
            "fit_temperature, or pass more examples."
        )
    mean = total / len(rows)
    for block in rows.blocks():
        squares += ((block.logits - mean) ** 2).sum(0)
    return mean, np.sqrt(squares / len(rows))


def _loss(numbers: Floats, rows: Rows, mean: Floats, unit: Floats) -> tuple[float, Floats]:
    """The mean NLL of softmax(a u + c), u the standardised columns, and its slope; numbers are a and c, [2K]."""
    weight, bias = numbers.reshape(2, rows.num_classes)
    slope, value = np.zeros((2, rows.num_classes)), 0.0
    for _, z, y, soft in rows.blocks():
        each = np.arange(len(y))
        z -= mean
        z *= unit
        scaled = z * weight + bias
        scaled -= scaled.max(1, keepdims=True)
        p = np.exp(scaled)
        total = p.sum(1, keepdims=True)
        p /= total
        if soft is None:
            value += float((np.log(total[:, 0]) - scaled[each, y]).sum())
            p[each, y] -= 1
        else:
            value += float((soft * (np.log(total) - scaled)).sum())
            p *= soft.sum(1, keepdims=True)
            p -= soft
        slope += (p * z).sum(0), p.sum(0)
    return value / len(rows), slope.ravel() / len(rows)


def _is_perfect(scaling: VectorScaling, rows: Rows) -> bool:
    """Whether the label of every example has a higher scaled logit than all other classes."""
    for _, z, y, soft in rows.blocks():
        each = np.arange(len(y))
        if soft is not None and (soft[each, y] < 1).any():
            return False
        z *= scaling.weight
        z += scaling.bias
        own = z[each, y].copy()
        z[each, y] = -np.inf
        if (own <= z.max(1)).any():
            return False
    return True
