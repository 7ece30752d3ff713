r"""Axis 3, targets: which row of numbers stands for a label.

A targets matrix is a FloatTensor[K, K] whose row ``y`` is the training target of an example labelled ``y``.
``None`` stands for the identity (one-hot). Every objective accepts one, so combinations need no code of their own.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor


class Targets(Protocol):
    """What a `Method` asks of its third part."""

    def matrix(self, num_labels: int) -> Tensor | None:
        """The FloatTensor[K, K] of target rows, or None for one-hot."""
        ...


@dataclass(frozen=True)
class OneHot:
    """The label itself: ``T = I``."""

    def matrix(self, num_labels: int) -> Tensor | None:
        return None


@dataclass(frozen=True)
class LabelSmoothing:
    """Label smoothing with ``eps`` spread over all K classes; see `label_smoothing`."""

    eps: float = 0.1

    def __post_init__(self) -> None:
        _check_eps(self.eps)

    def matrix(self, num_labels: int) -> Tensor | None:
        return label_smoothing(num_labels, self.eps)


@dataclass(frozen=True, eq=False)
class Fixed:
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
    if not hasattr(targets, "matrix"):
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


def _check_eps(eps: float) -> None:
    if not 0 <= eps < 1:
        raise ValueError(f"eps={eps} is outside [0, 1): label smoothing moves a share eps of the mass to all classes.")
