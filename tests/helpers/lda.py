"""Class similarity by plain loops and scikit-learn."""

from __future__ import annotations

import math

import numpy as np
import torch
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis

from helpers.data import batch_of
from hf_logitmix.similarity import exponential, linear, logistic

BY_HAND = {
    logistic: lambda d: 1 / (1 + math.exp(d)),
    exponential: lambda d: math.exp(-d),
    linear: lambda d: 1 - d / 2,
}


def unnormalised(vectors, s=logistic) -> list[list[float]]:
    """s(1 - cos) of each two vectors, zero on the diagonal."""
    found = []
    for i, own in enumerate(vectors):
        row = []
        for j, other in enumerate(vectors):
            product = sum(a * b for a, b in zip(own, other, strict=True))
            norms = math.sqrt(sum(a * a for a in own)) * math.sqrt(sum(b * b for b in other))
            row.append(0.0 if i == j else BY_HAND[s](1 - product / norms))
        found.append(row)
    return found


def rows_to_one(matrix) -> np.ndarray:
    return np.array([[value / sum(row) for value in row] for row in matrix])


def means_by_sklearn(x, y, n_components=None) -> list[list[float]]:
    count = n_components or min(y.max(), x.shape[1])
    projected = LinearDiscriminantAnalysis(n_components=count).fit(x, y).transform(x)
    return [projected[y == k].mean(0).tolist() for k in range(y.max() + 1)]


def from_pooler(model, rows) -> np.ndarray:
    """What BERT's pooler gives for one example at a time."""
    model.eval()
    with torch.no_grad():
        return np.stack([model.bert(**batch_of([row])).pooler_output[0].double().numpy() for row in rows])
