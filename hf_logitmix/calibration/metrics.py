"""Calibration metrics from logits, and their use in a Trainer."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import log_softmax, softmax
from torch import Tensor

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


def as_logits_and_labels(logits: Any, labels: Any) -> tuple[Floats, Ints]:
    """Check logits [N, K] and class ids [N], and give them as NumPy arrays in float64 and int64.

    Raises:
        ValueError: for other shapes, K = 1, no examples, NaN, or a label outside 0..K-1.
    """
    z = _array(logits).astype(np.float64)
    y = _array(labels)
    if z.ndim != 2 or y.shape != z.shape[:1]:
        raise ValueError(
            f"logits of shape {z.shape} and labels of shape {y.shape}: pass [N, K] logits and [N] class ids."
        )
    if z.shape[1] < 2:
        raise ValueError("logits have one column: calibration needs the logits of two or more classes.")
    if not len(z):
        raise ValueError("logits and labels are empty: pass at least one example.")
    if not np.isfinite(z).all():
        raise ValueError("logits hold NaN or infinity: the model that made them has diverged.")
    if len(z) > 1 and (z >= 0).all() and np.allclose(z.sum(1), 1, atol=1e-3):
        warnings.warn(
            "logits are non-negative and every row sums to 1, as probabilities do: pass what comes before the softmax.",
            UserWarning,
            stacklevel=_level_of_the_user(),
        )
    if not ((y >= 0) & (y < z.shape[1]) & (y == np.floor(y))).all():
        raise ValueError(f"labels must be class ids in 0..{z.shape[1] - 1}, one for each column of the logits.")
    return z, y.astype(np.int64)


def _level_of_the_user() -> int:
    """The ``stacklevel`` with which the caller's warning points at the first line outside of this package."""
    frame, level = sys._getframe(1), 1
    while frame.f_back is not None and frame.f_globals.get("__name__", "").split(".")[0] == "hf_logitmix":
        frame, level = frame.f_back, level + 1
    return level


def _array(values: Any) -> NDArray[Any]:
    if not isinstance(values, Tensor):
        return np.asarray(values)
    values = values.detach().cpu()
    return (values.double() if values.is_floating_point() else values).numpy()


def bin_of(confidence: Floats, n_bins: int) -> Ints:
    """Index of the equal-width bin (lo, hi] of each confidence; 0 belongs to the first bin, 1 to the last."""
    if n_bins < 1:
        raise ValueError(f"n_bins={n_bins}: pass at least one bin.")
    upper_edges = np.arange(1, n_bins) / n_bins
    return np.searchsorted(upper_edges, confidence, side="left").astype(np.int64)


def bin_means(confidence: Floats, hits: Floats, index: Ints, n_bins: int) -> tuple[Floats, Floats, Floats]:
    """Share of the examples, mean confidence and mean of ``hits`` in each bin; the means of an empty bin are 0."""
    count = np.bincount(index, minlength=n_bins)
    divisor = np.maximum(count, 1)
    mean_confidence = np.bincount(index, weights=confidence, minlength=n_bins) / divisor
    return count / len(index), mean_confidence, np.bincount(index, weights=hits, minlength=n_bins) / divisor


def calibration_metrics(logits: ArrayLike | Tensor, labels: ArrayLike | Tensor, n_bins: int = 10) -> dict[str, float]:
    r"""Accuracy and calibration of a classifier.

    With confidence :math:`\hat p = \max_k p_k`, :math:`p = \mathrm{softmax}(z)`, bins b of equal width, closed above,
    and :math:`w_b` the share of examples in a bin:

    ============== ==========================================================================================
    accuracy       share of examples whose arg max is the label
    ece            :math:`\sum_b w_b |\mathrm{acc}_b - \mathrm{conf}_b|`, expected calibration error (Guo et al., 2017)
    oe             :math:`\sum_b w_b\, \mathrm{conf}_b \max(\mathrm{conf}_b - \mathrm{acc}_b, 0)`, overconfidence error
                   (Thulasidasan et al., 2019)
    mce            :math:`\max_b |\mathrm{acc}_b - \mathrm{conf}_b|` over bins that are not empty
    adaptive_ece   ece over bins of equal mass (numpy.array_split of the sorted confidences; Nguyen & O'Connor, 2015)
    classwise_ece  mean over classes k of :math:`\sum_b w_b |\mathrm{freq}_b(y = k) - \mathrm{mean}_b(p_k)|`
                   (Kull et al., 2019)
    nll            mean of :math:`-\log p_y`, in nats
    brier          mean of :math:`\sum_k (p_k - [y = k])^2`, from 0 to 2
    ============== ==========================================================================================

    Args:
        logits: [N, K] with K >= 2, before the softmax. Never probabilities: nothing is guessed.
        labels: [N] class ids.
        n_bins: number of bins; 10 as in the released LogitMix code, 15 is common elsewhere.

    Raises:
        ValueError: for shapes that do not fit, K = 1, no examples, NaN logits, labels outside 0..K-1, n_bins < 1.
    """
    z, y = as_logits_and_labels(logits, labels)
    p, nll = softmax(z, axis=1), -log_softmax(z, axis=1)[np.arange(len(y)), y]
    confidence, hits = p.max(1), (z.argmax(1) == y).astype(np.float64)

    weight, conf, acc = bin_means(confidence, hits, bin_of(confidence, n_bins), n_bins)
    gap = np.abs(acc - conf)
    mass = np.empty(len(y), dtype=np.int64)
    for number, members in enumerate(np.array_split(np.argsort(confidence, kind="stable"), n_bins)):
        mass[members] = number
    mass_weight, mass_conf, mass_acc = bin_means(confidence, hits, mass, n_bins)
    one_hot = np.eye(z.shape[1])[y]
    by_class = []
    for k in range(z.shape[1]):
        class_weight, class_conf, class_freq = bin_means(p[:, k], one_hot[:, k], bin_of(p[:, k], n_bins), n_bins)
        by_class.append((class_weight * np.abs(class_freq - class_conf)).sum())
    values = {
        "accuracy": hits.mean(),
        "ece": (weight * gap).sum(),
        "oe": (weight * conf * np.maximum(conf - acc, 0)).sum(),
        "mce": gap[weight > 0].max(),
        "adaptive_ece": (mass_weight * np.abs(mass_acc - mass_conf)).sum(),
        "classwise_ece": np.mean(by_class),
        "nll": nll.mean(),
        "brier": ((p - one_hot) ** 2).sum(1).mean(),
    }
    return {name: float(value) for name, value in values.items()}


def one_class_remark(logits: ArrayLike | Tensor, labels: ArrayLike | Tensor) -> str:
    """A sentence for a classifier that gives nearly always the same class, though the labels do not; else empty.

    Its accuracy is the share of that class, and its calibration error can be small all the same.
    """
    z, y = as_logits_and_labels(logits, labels)
    predicted, given = (np.bincount(of, minlength=z.shape[1]).max() / len(y) for of in (z.argmax(1), y))
    if predicted < 0.95 or predicted - given < 0.05:
        return ""
    return (
        f"{predicted:.1%} of the predictions are one class, and {given:.1%} of the labels are the most frequent one: "
        "the model hardly tells the classes apart, whatever its calibration error."
    )


def calibration_of(n_bins: int = 10) -> Callable[[Any], dict[str, float]]:
    """A ``compute_metrics`` for a Trainer that gives `calibration_metrics`.

    Example:
        >>> trainer = MixTrainer(..., compute_metrics=calibration_of(n_bins=15))  # doctest: +SKIP
    """

    def compute_metrics(prediction: Any) -> dict[str, float]:
        logits = prediction.predictions
        return calibration_metrics(logits[0] if isinstance(logits, tuple) else logits, prediction.label_ids, n_bins)

    return compute_metrics
