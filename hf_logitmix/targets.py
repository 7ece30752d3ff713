r"""Axis 3, targets: which row of numbers stands for a label.

A targets matrix is a FloatTensor[K, K] whose row ``y`` is the training target of an example labelled ``y``.
``None`` stands for the identity (one-hot). Every objective accepts one, so combinations need no code of their own.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from hf_logitmix.checks import check_labels, label_column


@dataclass(frozen=True)
class TrainingSet:
    """What targets may look at before the first step.

    Attributes:
        dataset: the Trainer's training set.
        model: the model as it is loaded.
        num_labels: K.
    """

    dataset: Any
    model: nn.Module
    num_labels: int

    def class_counts(self) -> Tensor:
        """Number of examples of each class, LongTensor[K].

        Raises:
            ValueError: for a dataset without a length or without labels, and for labels outside 0..K-1.
        """
        labels = label_column(self.dataset)
        if labels is None:
            if not hasattr(self.dataset, "__len__"):
                raise ValueError("train_dataset has no length, so its classes cannot be counted: pass class_counts.")
            rows = (self.dataset[index] for index in range(len(self.dataset)))
            labels = np.asarray([int(row["labels"] if "labels" in row else row["label"]) for row in rows])
        check_labels(labels, self.num_labels, "single_label_classification", "train_dataset")
        return torch.from_numpy(np.bincount(labels.astype(np.int64), minlength=self.num_labels))


class Targets:
    """The third part of a `Method`; a new kind overrides `matrix`, and `prepare` if it depends on the data."""

    def check(self, num_labels: int, problem_type: str) -> None:
        """Raise ValueError where these targets are undefined."""
        if problem_type != "single_label_classification":
            raise ValueError(f"targets={self} are rows for classes and this is {problem_type}: pass targets=OneHot().")

    def prepare(self, training_set: TrainingSet) -> Targets:
        """The targets to train with, found before the first step."""
        return self

    def matrix(self, num_labels: int) -> Tensor | None:
        """The FloatTensor[K, K] of target rows, or None for one-hot."""
        raise NotImplementedError


@dataclass(frozen=True)
class OneHot(Targets):
    """The label itself, ``T = I``; for regression and multi-label the label as it is."""

    def check(self, num_labels: int, problem_type: str) -> None:
        """Defined for every head."""

    def matrix(self, num_labels: int) -> Tensor | None:
        return None


@dataclass(frozen=True)
class LabelSmoothing(Targets):
    """Label smoothing with ``eps`` spread over all K classes; see `label_smoothing`."""

    eps: float = 0.1

    def __post_init__(self) -> None:
        _check_eps(self.eps)

    def check(self, num_labels: int, problem_type: str) -> None:
        super().check(num_labels, problem_type)
        self.matrix(num_labels)

    def matrix(self, num_labels: int) -> Tensor | None:
        return label_smoothing(num_labels, self.eps)


@dataclass(frozen=True)
class Infogain(Targets):
    """Infogain weights of the classes; see `infogain`.

    Attributes:
        class_counts: number of training examples of each class; None counts them before training starts.
    """

    class_counts: Sequence[int] | None = None

    def check(self, num_labels: int, problem_type: str) -> None:
        super().check(num_labels, problem_type)
        if self.class_counts is not None:
            self.matrix(num_labels)

    def prepare(self, training_set: TrainingSet) -> Targets:
        return self if self.class_counts is not None else Infogain(training_set.class_counts().tolist())

    def matrix(self, num_labels: int) -> Tensor | None:
        if self.class_counts is None or len(self.class_counts) != num_labels:
            raise ValueError(f"class_counts={self.class_counts}: pass one number for each of {num_labels} classes.")
        return infogain(torch.as_tensor(self.class_counts))


@dataclass(frozen=True, eq=False)
class Fixed(Targets):
    """A target matrix of the user's own, FloatTensor[K, K]."""

    rows: Tensor

    def __post_init__(self) -> None:
        rows = self.rows
        if rows.dim() != 2 or rows.shape[0] != rows.shape[1]:
            raise ValueError(f"targets of shape {tuple(rows.shape)}: pass one row a class, a [K, K] tensor.")
        if not torch.isfinite(rows).all() or (rows < 0).any():
            raise ValueError(
                "targets hold a negative, infinite or NaN entry: every row must be non-negative and finite."
            )

    def check(self, num_labels: int, problem_type: str) -> None:
        super().check(num_labels, problem_type)
        self.matrix(num_labels)

    def matrix(self, num_labels: int) -> Tensor | None:
        if len(self.rows) != num_labels:
            raise ValueError(
                f"targets have {len(self.rows)} rows and the model has num_labels={num_labels}: pass a "
                f"[{num_labels}, {num_labels}] tensor."
            )
        return self.rows


def as_targets(targets: Targets | Tensor | None) -> Targets:
    """Targets from what a user passes: None is one-hot, a tensor is its rows.

    Raises:
        ValueError: for anything else without a ``matrix``.
    """
    if targets is None:
        return OneHot()
    if isinstance(targets, Tensor):
        return Fixed(targets)
    if not isinstance(targets, Targets):
        raise ValueError(f"targets={targets!r}: pass None, a [K, K] tensor or an object of hf_logitmix.targets.")
    return targets


def label_smoothing(num_labels: int, eps: float) -> Tensor:
    r"""Rows of label smoothing, :math:`T = (1 - \epsilon) I + \epsilon / K`.

    The mass is spread over all K classes, the true one included (Szegedy et al., Rethinking the Inception
    Architecture, 2016), as torch's ``label_smoothing`` argument does.

    Returns:
        FloatTensor[K, K]; rows sum to 1.

    Raises:
        ValueError: for eps outside [0, 1) or num_labels < 2.
    """
    _check_eps(eps)
    if num_labels < 2:
        raise ValueError(f"label smoothing needs at least two classes and got num_labels={num_labels}.")
    return (1 - eps) * torch.eye(num_labels) + eps / num_labels


def infogain(class_counts: Tensor) -> Tensor:
    r"""Rows of the infogain loss, :math:`H_{yy} = \min_j N_j / N_y` and zero elsewhere.

    The loss :math:`-\sum_i H_{yi} \log p_i` then counts an example of a frequent class less. The orientation is that of
    Caffe's InfogainLoss; Negi et al. (Leveraging Class Similarity) print the transpose. Rows do not sum to 1.

    Args:
        class_counts: [K], number of training examples of each class.

    Returns:
        FloatTensor[K, K].

    Raises:
        ValueError: for a class without examples.
    """
    counts = class_counts.double()
    if counts.dim() != 1 or not (counts > 0).all():
        raise ValueError(f"class_counts={class_counts.tolist()}: infogain needs at least one example of every class.")
    return torch.diag(counts.min() / counts).float()


def _check_eps(eps: float) -> None:
    if not 0 <= eps < 1:
        raise ValueError(f"eps={eps} is outside [0, 1): label smoothing moves a share eps of the mass to all classes.")
