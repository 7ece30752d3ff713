"""Label smoothing."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from hf_logitmix import papers
from hf_logitmix.part import LabelSpec
from hf_logitmix.targets.base import Targets


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


@dataclass(frozen=True)
class LabelSmoothing(Targets):
    """Label smoothing with ``eps`` spread over all K classes; see `label_smoothing`."""

    papers = (papers.LABEL_SMOOTHING,)

    eps: float = field(
        default=0.1, metadata={"help": "Mass that label smoothing or the MCEL family moves off the label."}
    )

    def __post_init__(self) -> None:
        _check_eps(self.eps)

    def check(self, model: Any, labels: LabelSpec) -> None:
        super().check(model, labels)
        self.matrix(labels.num_labels)

    def matrix(self, num_labels: int) -> Tensor | None:
        return label_smoothing(num_labels, self.eps)


def _check_eps(eps: float) -> None:
    if not 0 <= eps < 1:
        raise ValueError(f"eps={eps} is outside [0, 1): label smoothing moves a share eps of the mass to all classes.")
