"""Is one method better than another? Paired differences of metrics, with intervals over seeds and examples."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from scipy.special import log_softmax

from hf_logitmix.calibration.rows import Floats, as_float64, as_logits
from hf_logitmix.calibration.statistics import bin_of
from hf_logitmix.calibration.temperature import cross_fit


class Difference(NamedTuple):
    """Of the mean over runs: the value, and the ends of its interval."""

    value: float
    low: float
    high: float


def differences(
    ours: Sequence[tuple[Any, Any]],
    theirs: Sequence[tuple[Any, Any]],
    *,
    n_bins: int = 10,
    samples: int = 2000,
    level: float = 0.95,
    seed: int = 0,
) -> dict[str, Difference]:
    r"""How much higher each metric is in our runs than in theirs, both on the same examples.

    .. math:: d = \frac1S \sum_s \big( m(z_s, y) - m(z'_s, y) \big)

    with a percentile interval of the bootstrap: each sample draws S pairs of runs and N examples with replacement, the
    same examples for all runs. Temperatures are cross-fitted once, on all examples of a run.

    Args:
        ours, theirs: of S seeds each, in the same order, (logits [N, K], labels [N] class ids).
        n_bins: of the calibration error.
        samples: of the bootstrap.
        level: of the interval.
        seed: of what is drawn.

    Returns:
        accuracy, ece, nll, ece_scaled and nll_scaled, each with its `Difference`; negative is lower in ours.

    Raises:
        ValueError: for other numbers of runs, none, and runs on other examples.
    """
    if not ours or len(ours) != len(theirs):
        raise ValueError(f"{len(ours)} and {len(theirs)} runs: pass at least one of each, with the same seeds.")
    labels = np.asarray(ours[0][1])
    for _, others in [*ours, *theirs]:
        if not np.array_equal(np.asarray(others), labels):
            raise ValueError("the runs have other labels: pass runs that were evaluated on the same examples.")
    rng, count, size = np.random.default_rng(seed), len(ours), len(labels)
    drawn = [np.bincount(rng.integers(size, size=size), minlength=size) / size for _ in range(samples)]
    weights = np.stack([np.full(size, 1 / size), *drawn])  # what is found, and then the samples
    seeds = [np.bincount(rng.integers(count, size=count), minlength=count) / count for _ in range(samples)]
    of_runs = np.stack([np.full(count, 1 / count), *seeds])
    values = [_values(logits, labels, weights, n_bins) for logits, _ in ours]
    others = [_values(logits, labels, weights, n_bins) for logits, _ in theirs]
    found = {}
    for name in values[0]:
        apart = np.stack([a[name] - b[name] for a, b in zip(values, others, strict=True)], 1)
        mean = (apart * of_runs).sum(1)
        low, high = np.quantile(mean[1:], [(1 - level) / 2, (1 + level) / 2])
        found[name] = Difference(float(mean[0]), float(low), float(high))
    return found


def _values(logits: Any, labels: np.ndarray, weights: Floats, n_bins: int) -> dict[str, Floats]:
    """Each metric under each row of weights of the examples, [R]."""
    plain, scaled = as_float64(as_logits(logits)), cross_fit(logits, labels)
    found = {"accuracy": weights @ (plain.argmax(1) == labels)}
    for suffix, z in (("", plain), ("_scaled", scaled)):
        log_p = log_softmax(z, axis=1)
        confidence = np.exp(log_p.max(1))
        gap = (plain.argmax(1) == labels) - confidence
        bins = bin_of(confidence, n_bins)
        found[f"ece{suffix}"] = np.abs(weights @ (gap[:, None] * (bins[:, None] == np.arange(n_bins)))).sum(1)
        found[f"nll{suffix}"] = weights @ -log_p[np.arange(len(labels)), labels]
    return found
