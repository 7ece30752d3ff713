"""Metrics of predictions, by the names that records give them."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from scipy.stats import pearsonr, spearmanr
from sklearn.metrics import accuracy_score, f1_score, matthews_corrcoef

from hf_logitmix.soft_labels import classes_of

Metric = Callable[[np.ndarray, np.ndarray], float]

METRICS: dict[str, Metric] = {
    "accuracy": lambda labels, predictions: float(accuracy_score(labels, predictions)),
    "f1": lambda labels, predictions: float(f1_score(labels, predictions)),
    "f1_macro": lambda labels, predictions: float(f1_score(labels, predictions, average="macro", zero_division=0)),
    "f1_micro": lambda labels, predictions: float(f1_score(labels, predictions, average="micro", zero_division=0)),
    "exact_match": lambda labels, predictions: float(accuracy_score(labels, predictions)),
    "matthews_correlation": lambda labels, predictions: float(matthews_corrcoef(labels, predictions)),
    "pearson": lambda labels, predictions: float(pearsonr(labels, predictions).statistic),
    "spearmanr": lambda labels, predictions: float(spearmanr(labels, predictions).statistic),
    "rmse": lambda labels, predictions: float(np.sqrt(np.mean(np.square(labels - predictions)))),
}

OF_PROBLEM = {
    "single_label_classification": ("accuracy", "f1_macro"),
    "multi_label_classification": ("f1_micro", "f1_macro", "exact_match"),
    "regression": ("pearson", "spearmanr", "rmse"),
}


def metrics_of(problem_type: str, labels: np.ndarray, logits: np.ndarray) -> dict[str, float]:
    """The metrics of a kind of labels, other than those of calibration.

    Args:
        problem_type: a key of `OF_PROBLEM`.
        labels: [N] class ids or numbers; [N, K] soft labels, of which the class with most mass counts, or multi-hot
            rows.
        logits: [N, K], or [N, 1] for regression; of several labels those above 0 are predicted, which have a
            probability above one half.
    """
    if problem_type == "regression":
        labels, predictions = labels.reshape(len(labels)), logits[:, 0]
    elif problem_type == "multi_label_classification":
        labels, predictions = labels.astype(int), (logits > 0).astype(int)
    else:
        labels, predictions = classes_of(labels), logits.argmax(1)
    return {name: METRICS[name](labels, predictions) for name in OF_PROBLEM[problem_type]}
