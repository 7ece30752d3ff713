"""Cross-entropy of classes, and of labels of which several hold."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn import functional as F

from hf_logitmix.criteria.base import Criterion

_NOTHING_IGNORED = torch.iinfo(torch.int64).min  # as ignore_index, which would make -100 a loss of 0


@dataclass(frozen=True)
class CrossEntropy(Criterion):
    r""":math:`H(z, t) = -\sum_k t_k \log \mathrm{softmax}(z)_k`, for class ids and for rows of targets."""

    def __call__(self, logits: Tensor, target: Tensor) -> Tensor:
        if not target.is_floating_point():
            return F.cross_entropy(logits, target, reduction="none", ignore_index=_NOTHING_IGNORED)
        return -(target * F.log_softmax(logits, dim=-1)).sum(-1)


@dataclass(frozen=True)
class BinaryCrossEntropy(Criterion):
    r""":math:`-\frac1K \sum_k [t_k \log \sigma(z_k) + (1-t_k) \log (1-\sigma(z_k))]`, where several labels hold."""

    problem_types: ClassVar[tuple[str, ...]] = ("multi_label_classification",)

    def __call__(self, logits: Tensor, target: Tensor) -> Tensor:
        if target.shape != logits.shape:
            raise ValueError(f"labels of shape {tuple(target.shape)} and logits of shape {tuple(logits.shape)} differ.")
        return F.binary_cross_entropy_with_logits(logits, target, reduction="none").mean(-1)
