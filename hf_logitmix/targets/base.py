r"""Targets: which row of numbers stands for a label.

A targets matrix is a FloatTensor[K, K] whose row ``y`` is the training target of an example labelled ``y``.
``None`` stands for the identity (one-hot). Every objective accepts one, so combinations need no code of their own.
"""

from __future__ import annotations

from dataclasses import dataclass, is_dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from hf_logitmix.digest import one_line
from hf_logitmix.objectives.base import Terms
from hf_logitmix.part import LabelSpec, Part


class Targets(Part):
    """Which row stands for a label; a new kind overrides `matrix`, and `setup` if it depends on the data.

    Attributes:
        are_distributions: whether every row sums to 1.
        targets_lr: learning rate of what is learned; None is the model's.
    """

    targets_lr: float | None = None
    are_distributions: ClassVar[bool] = True

    def __repr__(self) -> str:
        return one_line(self) if is_dataclass(self) else f"{type(self).__name__}()"

    def check(self, model: Any, labels: LabelSpec) -> None:
        """Raise ValueError where these targets are undefined."""
        if labels.problem_type != "single_label_classification":
            raise ValueError(
                f"targets={self} are rows for classes and this is {labels.problem_type}: pass targets=OneHot()."
            )

    def matrix(self, num_labels: int) -> Tensor | None:
        """The FloatTensor[K, K] of target rows, or None for one-hot; asked for once a run, unless they are learned."""
        raise NotImplementedError

    def penalty(self) -> Terms:
        """What learned rows add to the loss of a step; nothing where nothing is learned."""
        return {}


@dataclass(frozen=True)
class OneHot(Targets):
    """The label itself, ``T = I``; for regression and multi-label the label as it is."""

    def check(self, model: Any, labels: LabelSpec) -> None:
        """Defined for every head."""

    def matrix(self, num_labels: int) -> Tensor | None:
        return None


@dataclass(frozen=True, eq=False, repr=False)
class TargetMatrix(Targets):
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

    @property
    def are_distributions(self) -> bool:  # type: ignore[override]
        return bool(torch.allclose(self.rows.sum(1), self.rows.new_ones(()), atol=1e-4))

    def check(self, model: Any, labels: LabelSpec) -> None:
        super().check(model, labels)
        self.matrix(labels.num_labels)

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
        return TargetMatrix(targets)
    if not isinstance(targets, Targets):
        raise ValueError(f"targets={targets!r}: pass None, a [K, K] tensor or an object of hf_logitmix.targets.")
    return targets
