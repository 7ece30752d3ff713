"""MCEL: part of a label's mass goes to the classes that are like it."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from hf_logitmix import papers
from hf_logitmix.modalities import modality_of
from hf_logitmix.part import LabelSpec
from hf_logitmix.targets.base import Targets
from hf_logitmix.targets.similarity import check_similarity, class_similarity, logistic
from hf_logitmix.training.training_set import TrainingSet


def mcel(similarity: Tensor, eps: float | Tensor) -> Tensor:
    r"""Rows of the mixed cross-entropy loss, :math:`T = (1 - \epsilon) I + \epsilon A`.

    Equation (4) of Negi et al., Leveraging Class Similarity to Improve Deep Neural Network Robustness, 2018; with one
    eps a class, equation (6) (SG-MCEL): :math:`T_i = (1 - \epsilon_i) e_i + \epsilon_i A_i`.

    Args:
        similarity: A, FloatTensor[K, K]: zero diagonal, rows that sum to 1; see `hf_logitmix.targets.similarity`.
        eps: the mass that leaves the label, in [0, 0.5); a number, or a FloatTensor[K] with one for each class.

    Returns:
        FloatTensor[K, K]; rows sum to 1.

    Raises:
        ValueError: for eps outside [0, 0.5) and for an impossible similarity.
    """
    check_similarity(similarity)
    each = torch.as_tensor(eps, dtype=similarity.dtype, device=similarity.device)
    if each.dim() > 1 or (each.dim() == 1 and len(each) != len(similarity)):
        raise ValueError(f"eps of shape {tuple(each.shape)}: pass one number, or one for each of {len(similarity)}.")
    if not ((each >= 0) & (each < 0.5)).all():
        raise ValueError(f"eps={eps} is outside [0, 0.5): the label itself must keep more than half of the mass.")
    return mcel_rows(similarity, each)


def mcel_rows(similarity: Tensor, eps: Tensor) -> Tensor:
    """The same without checks, for an eps that is being learned."""
    eps = eps.expand(len(similarity)).unsqueeze(1)
    return (1 - eps) * torch.eye(len(similarity), dtype=similarity.dtype, device=similarity.device) + eps * similarity


@dataclass(frozen=True, eq=False, repr=False)
class MCEL(Targets):
    """MCEL (Negi et al., 2018); see `mcel`.

    Attributes:
        eps: the mass that leaves the label, in [0, 0.5). The paper tries 0 to 0.5 and reports 0.2 (its table 3) and
            0.35 (its table 1).
        class_similarity: A, FloatTensor[K, K]; None finds it in the training set before training starts
            (`hf_logitmix.targets.similarity.class_similarity`).
        symmetric: make that A doubly stochastic; see `hf_logitmix.targets.similarity.lda_similarity`.
        similarity_fn: how alike classes at a distance are; None is `hf_logitmix.similarity.logistic`, the paper's.
        features: of LDA: ``pixels``, which the paper takes, or ``pooled``, what the head of the model as it is loaded
            reads. None is the first for models of images and the second for those of text, which have no pixels.

    Raises:
        ValueError: for eps outside [0, 0.5) or an impossible matrix; before training, for a class without examples.
    """

    papers = (papers.MCEL,)

    eps: float = field(
        default=0.2, metadata={"help": "Mass that label smoothing or the MCEL family moves off the label."}
    )
    class_similarity: Tensor | None = field(
        default=None,
        metadata={"help": "A [K, K] tensor; else it is found in the training set by LDA.", "command_line": False},
    )
    symmetric: bool = field(default=False, metadata={"help": "Make MCEL's class similarity doubly stochastic."})
    features: str | None = field(
        default=None, metadata={"help": "What MCEL's class similarity is found in: pooled, or pixels of images."}
    )
    similarity_fn: Callable[[np.ndarray], np.ndarray] | None = field(
        default=None,
        metadata={
            "help": "Makes of a distance how alike classes are; else the logistic function.",
            "command_line": False,
        },
    )

    def __post_init__(self) -> None:
        if self.features not in (None, "pixels", "pooled"):
            raise ValueError(f"features={self.features!r} is unknown: pass 'pixels' (of images), 'pooled' or None.")
        if not 0 <= self.eps < 0.5:
            raise ValueError(
                f"eps={self.eps} is outside [0, 0.5): the label itself must keep more than half of the mass."
            )
        if self.class_similarity is not None:
            matrix = torch.as_tensor(self.class_similarity)
            matrix = matrix.float() if matrix.dtype == torch.float64 else matrix
            check_similarity(matrix)
            object.__setattr__(self, "class_similarity", matrix)

    def check(self, model: Any, labels: LabelSpec) -> None:
        super().check(model, labels)
        if self.class_similarity is not None:
            check_similarity(self.class_similarity, labels.num_labels)
        if labels.num_labels == 2:
            warnings.warn(
                "with two classes the class similarity is trivial, each is like the other: MCEL is label smoothing "
                "with twice the eps there.",
                UserWarning,
                stacklevel=2,
            )

    def setup(self, training_set: TrainingSet) -> Targets:
        if self.class_similarity is not None:
            return self
        of_kind = modality_of(training_set.model).features
        if self.features == "pixels" and of_kind != "pixels":
            raise ValueError("features='pixels' is for models of images and this one reads text: pass 'pooled'.")
        features = self.features or of_kind
        found = class_similarity(
            training_set, features=features, symmetric=self.symmetric, s=self.similarity_fn or logistic
        )
        return replace(self, class_similarity=found)

    def matrix(self, num_labels: int) -> Tensor | None:
        similarity = self._similarity()
        return mcel_rows(similarity, torch.tensor(self.eps).to(similarity))

    def _similarity(self) -> Tensor:
        if self.class_similarity is None:
            raise ValueError("class_similarity is not known yet: pass it, or call setup() with the training set.")
        return self.class_similarity
