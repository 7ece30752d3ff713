"""Prediction sets by split conformal prediction: classes that hold the label as often as is asked for."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import log_softmax, softmax
from torch import Tensor
from transformers.utils import logging

from hf_logitmix.calibration.rows import Floats, Rows, as_logits, logit_blocks

logger = logging.get_logger(__name__)


def lac(logits: Floats) -> Floats:
    """[B, K] -log p_k, which orders classes and examples as 1 - p_k does (Sadinle et al., 2019)."""
    scores: Floats = -log_softmax(logits, axis=1)
    return scores


def aps(logits: Floats) -> Floats:
    """[B, K] the mass of the classes more probable than class k (Romano et al., 2020, not randomised).

    The class's own mass is left out, so that the most probable class is in every set; others count it in.
    """
    p = softmax(logits, axis=1)
    order = np.argsort(-p, axis=1, kind="stable")
    falling = np.take_along_axis(p, order, axis=1)
    before = np.zeros_like(p)
    before[:, 1:] = falling.cumsum(1)[:, :-1]
    before[:, 1:][falling[:, 1:] == falling[:, :-1]] = 0.0  # an equal class counts what the first of its equals does
    scores = np.empty_like(p)
    np.put_along_axis(scores, order, np.maximum.accumulate(before, axis=1), axis=1)
    return scores


SCORES: dict[str, Callable[[Floats], Floats]] = {"lac": lac, "aps": aps}


@dataclass(frozen=True)
class PredictionSets:
    """What `fit_prediction_sets` found.

    Attributes:
        score: name in `SCORES`.
        threshold: of the score, up to which a class is in the set.
        num_classes: K.
    """

    score: str
    threshold: float
    num_classes: int

    def apply(self, logits: ArrayLike | Tensor) -> NDArray[np.bool_]:
        """[N, K] whether class k is in the set of example n, for logits [N, K]."""
        z = as_logits(logits, self.num_classes)
        sets = np.empty(tuple(z.shape), dtype=bool)
        for rows, block in logit_blocks(z):
            sets[rows] = SCORES[self.score](block) <= self.threshold
        return sets


def fit_prediction_sets(
    logits: ArrayLike | Tensor, labels: ArrayLike | Tensor, coverage: float = 0.9, score: str = "lac"
) -> PredictionSets:
    r"""The threshold with which sets hold the label of a new example with a probability of at least ``coverage``.

    It is the :math:`\lceil (N + 1)\, \mathrm{coverage} \rceil`-th smallest score of the labels of the N held-out
    examples. The promise is on average over held-out and new examples that are drawn alike, whatever the model, and not
    for each class or kind of example.

    * ``lac``: the smallest sets on average. An example of which the model is unsure may get none.
    * ``aps``: larger where the model is unsure. The most probable class is always in it, so that coverage is accuracy
      where that is more than is asked for.

    Args:
        logits: [N, K] held out from training, as trained or scaled.
        labels: [N] class ids; of soft rows [N, K] the arg max.
        coverage: in (0, 1).
        score: ``lac`` or ``aps``.

    Raises:
        ValueError: as `hf_logitmix.calibration.metrics.calibration_metrics`, and for another coverage or score.
    """
    if not 0 < coverage < 1:
        raise ValueError(f"coverage={coverage} is outside (0, 1): pass the share of sets that must hold the label.")
    if score not in SCORES:
        raise ValueError(f"score={score!r} is unknown: pass {' or '.join(SCORES)}.")
    rows = Rows.of(logits, labels)
    scores = np.empty(len(rows))
    for of, z, y, _ in rows.blocks():
        scores[of] = SCORES[score](z)[np.arange(len(y)), y]
    number = math.ceil((len(rows) + 1) * coverage - 1e-9)  # 0.55 * 100 is a little over 55
    if number > len(rows):
        logger.warning(
            "%d held-out examples are too few for a coverage of %g: every set holds all classes. It takes %d.",
            *(len(rows), coverage, math.ceil(coverage / (1 - coverage) - 1e-9)),
        )
        return PredictionSets(score, math.inf, rows.num_classes)
    return PredictionSets(score, float(np.partition(scores, number - 1)[number - 1]), rows.num_classes)


def prediction_sets(
    logits: ArrayLike | Tensor,
    calibration_logits: ArrayLike | Tensor,
    calibration_labels: ArrayLike | Tensor,
    coverage: float = 0.9,
    score: str = "lac",
) -> NDArray[np.bool_]:
    """Sets of classes for logits [N, K] that hold the label with a probability of at least ``coverage``.

    Args:
        logits: [N, K] of new examples.
        calibration_logits, calibration_labels: held out, as in `fit_prediction_sets`.
        coverage, score: as there.

    Returns:
        BoolArray[N, K].

    Raises:
        ValueError: as `fit_prediction_sets`, and where both logits have another number of classes.
    """
    return fit_prediction_sets(calibration_logits, calibration_labels, coverage, score).apply(logits)
