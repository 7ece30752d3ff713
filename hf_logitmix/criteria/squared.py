"""Squared error: of a number, and of probabilities (Brier)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor
from torch.nn import functional as F

from hf_logitmix.criteria.base import Criterion


@dataclass(frozen=True)
class Squared(Criterion):
    r""":math:`(z - y)^2` for regression; for classes :math:`\sum_k (p_k - T_k)^2` with :math:`p = \mathrm{softmax}(z)`.

    The latter is the Brier score as a loss (Brier, Verification of Forecasts Expressed in Terms of Probability, 1950).
    Hui and Belkin (Evaluation of Neural Architectures Trained with Square Loss vs Cross-Entropy, ICLR 2021) take the
    logits where this takes probabilities.
    """

    problem_types: ClassVar[tuple[str, ...]] = ("regression", "single_label_classification")

    def __call__(self, logits: Tensor, target: Tensor) -> Tensor:
        if not target.is_floating_point():
            target = F.one_hot(target, logits.shape[-1]).to(logits.dtype)
        if target.dim() == 2:
            return (logits.softmax(-1) - target).square().sum(-1)
        if logits.shape != (len(target), 1):
            raise ValueError(f"regression needs logits of shape [{len(target)}, 1] and got {tuple(logits.shape)}.")
        return (logits.squeeze(-1) - target).square()
