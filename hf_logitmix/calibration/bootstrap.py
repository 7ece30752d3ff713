"""How far metrics are to be trusted, from samples of the examples that they were measured on."""

from __future__ import annotations

from typing import Any

import numpy as np

from hf_logitmix.calibration.registry import SCALED
from hf_logitmix.calibration.rows import Floats, Rows
from hf_logitmix.calibration.statistics import bin_of
from hf_logitmix.calibration.temperature import cross_fit_temperatures

SAMPLES = 500


def intervals(
    logits: Any, labels: Any, n_bins: int = 10, *, samples: int = SAMPLES, seed: int = 0
) -> dict[str, tuple[float, float]]:
    """95% intervals of accuracy, ``ece``, ``oe``, ``nll`` and ``brier``, as trained and ``_scaled``.

    Samples of N examples are drawn with replacement from these N. An interval holds the middle 95% of a metric over
    samples, moved so that their mean is the metric of the examples themselves: a calibration error of a sample is
    larger than that of the examples by about what chance adds. It tells of the examples, not of another seed of
    training, and takes the temperatures of the scaled metrics (`cross_fit_temperatures`) as they are.

    Args:
        logits, labels, n_bins: as in `hf_logitmix.calibration.metrics.calibration_metrics`.
        samples: how many are drawn.
        seed: the same seed draws the same.

    Returns:
        name -> (lower, upper), each at least 0.

    Raises:
        ValueError: as `hf_logitmix.calibration.metrics.calibration_metrics`.
    """
    rows = Rows.of(logits, labels)
    forms = {"": rows} | ({SCALED: rows.divided_by(cross_fit_temperatures(rows))} if len(rows) > 1 else {})
    found = {}
    for form, part in forms.items():
        columns = _columns(part)
        own = _metrics(columns, np.ones(len(rows)), n_bins)
        rng = np.random.default_rng(seed)
        drawn = (np.bincount(rng.integers(len(rows), size=len(rows)), minlength=len(rows)) for _ in range(samples))
        values = np.array([_metrics(columns, counts, n_bins) for counts in drawn])
        moved = values - values.mean(0) + own
        low, high = np.quantile(moved, [0.025, 0.975], axis=0).clip(min=0)
        for number, name in enumerate(_NAMES):
            if not (form and name == "accuracy"):
                found[f"{name}{form}"] = (float(low[number]), float(high[number]))
    return found


_NAMES = ("accuracy", "ece", "oe", "nll", "brier")


def _columns(rows: Rows) -> Floats:
    """[4, N] confidence, hit, negative log-likelihood and Brier score of each example."""
    found = np.empty((4, len(rows)))
    for of, z, y, soft in rows.blocks():
        each, top = np.arange(len(y)), z.argmax(1)
        z -= z[each, top][:, None]
        total = np.exp(z).sum(1)
        p = np.exp(z) / total[:, None]
        target = np.eye(rows.num_classes)[y] if soft is None else soft
        nll = target.sum(1) * np.log(total) - (target * z).sum(1)
        found[:, of] = p[each, top], top == y, nll, ((p - target) ** 2).sum(1)
    return found


def _metrics(columns: Floats, counts: Any, n_bins: int) -> list[float]:
    """The metrics, by `_NAMES`, of a sample in which example i is counts[i] times."""
    confidence, hits, nll, brier = columns
    index, total = bin_of(confidence, n_bins), counts.sum()
    mass, sure, right = (
        np.bincount(index, weights=of, minlength=n_bins) for of in (counts, counts * confidence, counts * hits)
    )
    filled = np.maximum(mass, 1)
    over = (sure / filled * (sure - right).clip(min=0)).sum() / total
    means = [float((counts * of).sum() / total) for of in (hits, nll, brier)]
    return [means[0], float(np.abs(sure - right).sum() / total), float(over), means[1], means[2]]
