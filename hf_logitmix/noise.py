"""Label noise: wrong labels put into a training set on purpose, with the right ones kept beside them."""

from __future__ import annotations

from typing import Any

import numpy as np
from datasets import Dataset

KINDS = ("uniform", "pairwise")


def noisy_labels(labels: Any, num_labels: int, rate: float, kind: str = "uniform", seed: int = 0) -> np.ndarray:
    """Change the labels of a share of the examples.

    ``uniform`` picks round(rate N) of all examples and gives each another class, drawn uniformly from the other K - 1.
    ``pairwise`` pairs the classes at random and swaps labels inside a pair: round(rate N_c) examples of each class c
    get the label of its partner (Negi et al., Leveraging Class Similarity, 2018, figure 5). With an odd K one class has
    no partner and keeps its labels.

    Args:
        labels: [N] class ids 0..K-1.
        num_labels: K.
        rate: share of examples to change, in [0, 1].
        kind: ``uniform`` or ``pairwise``.
        seed: the same seed gives the same noise.

    Returns:
        IntArray[N].

    Raises:
        ValueError: for a rate or a kind that is not possible, fewer than two classes, or labels outside 0..K-1.
    """
    clean = np.asarray(labels)
    if not 0 <= rate <= 1:
        raise ValueError(f"rate={rate} is outside [0, 1]: it is the share of examples whose label is changed.")
    if kind not in KINDS:
        raise ValueError(f"kind={kind!r} is unknown: pass one of {', '.join(KINDS)}.")
    if num_labels < 2:
        raise ValueError(f"num_labels={num_labels}: label noise needs at least two classes.")
    if not np.issubdtype(clean.dtype, np.integer) or ((clean < 0) | (clean >= num_labels)).any():
        raise ValueError(f"labels must be integers in 0..{num_labels - 1}: label noise is for class ids.")
    clean = clean.astype(np.int64)
    generator, noisy = np.random.default_rng(seed), clean.copy()
    if kind == "uniform":
        chosen = generator.choice(len(clean), round(rate * len(clean)), replace=False)
        noisy[chosen] = (clean[chosen] + generator.integers(1, num_labels, len(chosen))) % num_labels
        return noisy
    order = generator.permutation(num_labels)
    for a, b in zip(order[0::2], order[1::2], strict=False):
        for own, other in ((a, b), (b, a)):
            members = np.flatnonzero(clean == own)
            noisy[generator.choice(members, round(rate * len(members)), replace=False)] = other
    return noisy


def add_label_noise(
    dataset: Dataset,
    rate: float,
    *,
    kind: str = "uniform",
    seed: int = 0,
    num_labels: int | None = None,
    column: str = "label",
    clean_column: str = "clean_label",
) -> Dataset:
    """A dataset with noisy labels; the clean ones are kept in another column.

    Args:
        dataset: with class ids in ``column``.
        rate, kind, seed: as in `noisy_labels`.
        num_labels: K; None takes it from a ClassLabel feature, or else from the highest label.
        column: of the labels.
        clean_column: where the clean labels go.

    Raises:
        ValueError: as `noisy_labels`, for a column that is missing, and for a clean_column that is there already.
    """
    if column not in dataset.column_names:
        raise ValueError(f"column={column!r} is not in the dataset, which has {', '.join(dataset.column_names)}.")
    if clean_column in dataset.column_names:
        raise ValueError(f"clean_column={clean_column!r} is there already: pass another name.")
    labels, feature = np.asarray(dataset.with_format(None)[column][:]), dataset.features[column]
    if num_labels is None:
        num_labels = getattr(feature, "num_classes", None)
    if num_labels is None:
        numbers = len(labels) and np.issubdtype(labels.dtype, np.integer)
        num_labels = int(labels.max()) + 1 if numbers else 2  # what is no class id is refused below
    noisy = noisy_labels(labels, num_labels, rate, kind, seed)
    kept = dataset.add_column(clean_column, labels.tolist()).cast_column(clean_column, feature)
    return kept.remove_columns(column).add_column(column, noisy.tolist()).cast_column(column, feature)
