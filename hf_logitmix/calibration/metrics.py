"""Metrics of a classifier's probabilities from its logits, and their use in a Trainer."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import ArrayLike
from torch import Tensor

from hf_logitmix.calibration.registry import METRICS, SCALED, is_brief
from hf_logitmix.calibration.rows import Rows
from hf_logitmix.calibration.statistics import statistics_of
from hf_logitmix.calibration.temperature import cross_fit_temperatures


def calibration_metrics(logits: ArrayLike | Tensor, labels: ArrayLike | Tensor, n_bins: int = 10) -> dict[str, float]:
    r"""Accuracy, calibration and selective prediction of a classifier: every metric of `METRICS`.

    With confidence :math:`\hat p = \max_k p_k`, :math:`p = \mathrm{softmax}(z)`, bins b of equal width, closed above,
    :math:`w_b` the share of examples in a bin, and examples i = 1..N in falling order of confidence:

    ============== ==========================================================================================
    accuracy       share of examples whose arg max is the label
    ece            :math:`\sum_b w_b |\mathrm{acc}_b - \mathrm{conf}_b|`, expected calibration error (Guo et al., 2017)
    oe             :math:`\sum_b w_b\, \mathrm{conf}_b \max(\mathrm{conf}_b - \mathrm{acc}_b, 0)`, overconfidence error
                   (Thulasidasan et al., 2019)
    mce            :math:`\max_b |\mathrm{acc}_b - \mathrm{conf}_b|` over bins that are not empty
    adaptive_ece   ece over bins of equal mass (numpy.array_split of the sorted confidences; Nguyen & O'Connor, 2015);
                   where examples of equal confidence fall into two bins, both get their mean accuracy
    classwise_ece  mean over classes k of :math:`\sum_b w_b |\mathrm{freq}_b(y = k) - \mathrm{mean}_b(p_k)|`
                   (Kull et al., 2019)
    smooth_ece     `hf_logitmix.calibration.smooth.smooth_ece` (Blasiok & Nakkiran, 2024)
    nll            mean of :math:`-\log p_y`, in nats
    brier          mean of :math:`\sum_k (p_k - [y = k])^2`, from 0 to 2
    aurc           :math:`\frac1N \sum_i r_i`, with :math:`r_i` the share of wrong answers among the first i (Geifman &
                   El-Yaniv, 2018)
    augrc          area under :math:`(i/N, i r_i/N)` (Traub et al., 2024)
    auroc          share of pairs of a right and a wrong answer in which the right one has more confidence; 0.5 where
                   all are right or all wrong
    coverage_at_   largest i/N with :math:`r_i` of at most 1, 5 or 10%, i at the end of a group of equal confidence; 0
    risk_1, 5, 10  where there is none
    ============== ==========================================================================================

    Nothing depends on the order of the rows: inside a group of equal confidence :math:`r_i` is its mean over all
    orders.

    Rows are read a block at a time, so that float32 and memory-mapped logits are never converted whole.

    Args:
        logits: [N, K] with K >= 2, before the softmax. Never probabilities: nothing is guessed.
        labels: [N] class ids; or [N, K] rows r that sum to 1, such as shares of annotators' votes. Then the label is
            the arg max of its row (the first of equal ones), but nll is :math:`-\sum_k r_k \log p_k` and brier
            :math:`\sum_k (p_k - r_k)^2`.
        n_bins: number of bins; 10 as in the released LogitMix code, 15 is common elsewhere.

    Raises:
        ValueError: for shapes that do not fit, K = 1, no examples, NaN logits, labels outside 0..K-1 or rows that do
            not sum to 1, n_bins < 1.
    """
    return _values(Rows.of(logits, labels), n_bins)


def scaled_metrics(
    logits: ArrayLike | Tensor, labels: ArrayLike | Tensor, n_bins: int = 10, seed: int = 0
) -> dict[str, float]:
    """The same after cross-fitted temperature scaling, under names that end in ``_scaled``, without accuracy.

    Each half of the examples is scaled by the temperature of the other: `hf_logitmix.temperature.cross_fit`.

    Raises:
        ValueError: as `calibration_metrics`, and for fewer than two examples.
    """
    return _scaled(Rows.of(logits, labels), n_bins, seed)


def calibration_by_class(
    logits: ArrayLike | Tensor, labels: ArrayLike | Tensor, n_bins: int = 10
) -> list[dict[str, float]]:
    """The probabilities of each class, one against all others.

    Args:
        logits, labels, n_bins: as in `calibration_metrics`.

    Returns:
        a row a class: ``class``, ``n`` examples with this label, ``frequency`` n / N, ``mean_p`` the mean probability
        given to the class, and ``ece`` over bins of this probability; their mean is ``classwise_ece``.

    Raises:
        ValueError: as `calibration_metrics`.
    """
    rows = Rows.of(logits, labels)
    found, count = statistics_of(rows, n_bins), len(rows)
    numbers = np.bincount(rows.labels, minlength=rows.num_classes)
    return [
        {"class": k, "n": int(n), "frequency": n / count, "mean_p": float(p) / count, "ece": float(error)}
        for k, (n, p, error) in enumerate(zip(numbers.tolist(), found.class_p.sum(1), found.class_errors, strict=True))
    ]


def one_class_remark(logits: ArrayLike | Tensor, labels: ArrayLike | Tensor) -> str:
    """A sentence for a classifier that gives nearly always the same class, though the labels do not; else empty.

    Its accuracy is the share of that class, and its calibration error can be small all the same.
    """
    rows = Rows.of(logits, labels)
    counts = sum(np.bincount(block.logits.argmax(1), minlength=rows.num_classes) for block in rows.blocks())
    predicted, given = (np.max(of) / len(rows) for of in (counts, np.bincount(rows.labels)))
    if predicted < 0.95 or predicted - given < 0.05:
        return ""
    return (
        f"{predicted:.1%} of the predictions are one class, and {given:.1%} of the labels are the most frequent one: "
        "the model hardly tells the classes apart, whatever its calibration error."
    )


def calibration_of(n_bins: int = 10, scaled: bool = False) -> Callable[[Any], dict[str, float]]:
    """A ``compute_metrics`` for a Trainer that gives `calibration_metrics`.

    Args:
        n_bins: as in `calibration_metrics`.
        scaled: whether to add `scaled_metrics`, so that ``metric_for_best_model="nll_scaled"`` chooses the model that
            will be best once it is scaled (Berta et al., Rethinking Early Stopping: Refine, Then Calibrate, 2025).

    Example:
        >>> trainer = MixTrainer(..., compute_metrics=calibration_of(n_bins=15))  # doctest: +SKIP
    """

    def compute_metrics(prediction: Any) -> dict[str, float]:
        logits = prediction.predictions
        rows = Rows.of(logits[0] if isinstance(logits, tuple) else logits, prediction.label_ids)
        return _values(rows, n_bins) | (_scaled(rows, n_bins, 0) if scaled else {})

    return compute_metrics


def watched_metrics(
    logits: ArrayLike | Tensor, labels: ArrayLike | Tensor, n_bins: int = 10, chosen_by: str | None = None
) -> dict[str, float]:
    """What a run logs at each evaluation: the brief metrics, and the one that a checkpoint is chosen by."""
    rows, wanted = Rows.of(logits, labels), (chosen_by or "").removeprefix("eval_")
    values = _values(rows, n_bins) | (_scaled(rows, n_bins, 0) if wanted.endswith(SCALED) else {})
    return {
        name: value
        for name, value in values.items()
        if name == wanted or (is_brief(name) and not name.endswith(SCALED))
    }


def _values(rows: Rows, n_bins: int) -> dict[str, float]:
    found = statistics_of(rows, n_bins)
    return {name: float(metric.compute(found)) for name, metric in METRICS.items()}


def _scaled(rows: Rows, n_bins: int, seed: int) -> dict[str, float]:
    found = statistics_of(rows.divided_by(cross_fit_temperatures(rows, seed)), n_bins)
    return {f"{name}{SCALED}": float(metric.compute(found)) for name, metric in METRICS.items() if metric.scales}
