"""Metrics of one model over the temperature of its softmax."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from hf_logitmix.calibration.registry import METRICS
from hf_logitmix.calibration.rows import Floats, Rows
from hf_logitmix.calibration.statistics import statistics_of
from hf_logitmix.targets.similarity import as_array


def over_temperatures(
    logits: Any, labels: Any, temperatures: Sequence[float], metrics: Sequence[str] = ("nll", "ece"), n_bins: int = 10
) -> dict[str, Floats]:
    r"""Each metric of :math:`\mathrm{softmax}(z / T)` for each temperature T.

    Müller, Kornblith, Hinton, When Does Label Smoothing Help?, NeurIPS 2019, figure 4, where the metric beside NLL is
    BLEU. Accuracy does not depend on T.

    Args:
        logits: z, [N, K].
        labels: [N] class ids.
        temperatures: each above 0.
        metrics: names of `hf_logitmix.metrics.METRICS`.
        n_bins: of the calibration errors.

    Returns:
        name -> [len(temperatures)].

    Raises:
        ValueError: for a temperature that is not above 0 or a metric that is not there.
    """
    if not len(temperatures) or min(temperatures) <= 0:
        raise ValueError(f"temperatures={list(temperatures)}: pass numbers above 0.")
    if unknown := [name for name in metrics if name not in METRICS]:
        raise ValueError(f"metrics {', '.join(unknown)} are unknown: pass some of {', '.join(METRICS)}.")
    z = as_array(logits).astype(float)
    found: dict[str, list[float]] = {name: [] for name in metrics}
    for temperature in temperatures:
        statistics = statistics_of(Rows.of(z / temperature, labels), n_bins)
        for name in metrics:
            found[name].append(float(METRICS[name].compute(statistics)))
    return {name: np.array(values) for name, values in found.items()}
