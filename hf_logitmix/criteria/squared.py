"""Squared error."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from hf_logitmix.criteria.base import Criterion


@dataclass(frozen=True)
class Squared(Criterion):
    r""":math:`(z - y)^2`, for regression."""

    problem_types: ClassVar[tuple[str, ...]] = ("regression",)

    def __call__(self, logits: Tensor, target: Tensor) -> Tensor:
        if logits.shape != (len(target), 1):
            raise ValueError(f"regression needs logits of shape [{len(target)}, 1] and got {tuple(logits.shape)}.")
        return (logits.squeeze(-1) - target).square()
