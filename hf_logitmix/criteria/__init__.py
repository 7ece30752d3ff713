"""Criteria: how far one row of logits is from one target."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from torch import Tensor

from hf_logitmix.criteria.base import Criterion, RowLoss
from hf_logitmix.criteria.cross_entropy import BinaryCrossEntropy, CrossEntropy
from hf_logitmix.criteria.focal import DualFocal, Focal
from hf_logitmix.criteria.margin import Margin
from hf_logitmix.criteria.one_vs_all import OneVsAll
from hf_logitmix.criteria.squared import Squared

__all__ = [
    "CRITERIA",
    "BinaryCrossEntropy",
    "Criterion",
    "CrossEntropy",
    "DualFocal",
    "Focal",
    "Margin",
    "OneVsAll",
    "RowLoss",
    "Squared",
    "as_criterion",
    "criterion_of",
]

CRITERIA: Mapping[str, Criterion] = MappingProxyType(
    {
        "cross_entropy": CrossEntropy(),
        "binary_cross_entropy": BinaryCrossEntropy(),
        "squared": Squared(),
        "focal": Focal(),
        "dual_focal": DualFocal(),
        "margin": Margin(),
        "bce": OneVsAll(),
    }
)


def as_criterion(given: Criterion | str | None) -> Criterion | None:
    """A criterion from itself or its name in `CRITERIA`; None is the one that fits the labels (`criterion_of`).

    Raises:
        ValueError: for anything else.
    """
    if given is None or isinstance(given, Criterion):
        return given
    if isinstance(given, str) and given in CRITERIA:
        return CRITERIA[given]
    raise ValueError(f"criterion must be a Criterion or one of {', '.join(CRITERIA)}, got {given!r}.")


def criterion_of(labels: Tensor, soft_labels: bool = False) -> Criterion:
    """The criterion that fits a kind of labels; rows of floats are multi-label unless they are said to be soft labels.

    ===================== ==================== ======================
    labels                meaning              criterion
    ===================== ==================== ======================
    LongTensor[B]         class ids            `CrossEntropy`
    FloatTensor[B]        regression, K = 1    `Squared`
    FloatTensor[B, K]     multi-label          `BinaryCrossEntropy`
    FloatTensor[B, K]     ``soft_labels``      `CrossEntropy`
    ===================== ==================== ======================
    """
    if soft_labels or not labels.is_floating_point():
        return CrossEntropy()
    return Squared() if labels.dim() == 1 else BinaryCrossEntropy()
