"""Margin-based label smoothing: logits may differ by a margin for free."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from torch import Tensor

from hf_logitmix import papers
from hf_logitmix.criteria.base import Criterion
from hf_logitmix.criteria.cross_entropy import CrossEntropy


@dataclass(frozen=True)
class Margin(Criterion):
    r"""MbLS, :math:`H(z, T) + \frac{a}{K} \sum_k \max(0, \max_j z_j - z_k - m)`.

    Liu et al., The Devil is in the Margin: Margin-based Label Smoothing for Network Calibration, CVPR 2022; defaults
    of the released code.

    Attributes:
        margin: m, by how much the largest logit may exceed another one for free.
        margin_weight: a.

    Raises:
        ValueError: for a negative margin or weight.
    """

    papers = (papers.MARGIN,)

    margin: float = field(default=10.0, metadata={"help": "Margin: by how much logits may differ for free."})
    margin_weight: float = field(default=0.1, metadata={"help": "Margin: weight of what exceeds it."})

    def __post_init__(self) -> None:
        for name in ("margin", "margin_weight"):
            if not 0 <= getattr(self, name) < math.inf:
                raise ValueError(f"{name} must be a number >= 0, got {getattr(self, name)}.")

    def __call__(self, logits: Tensor, target: Tensor) -> Tensor:
        beyond = (logits.amax(-1, keepdim=True) - logits - self.margin).clamp_min(0)
        return CrossEntropy()(logits, target) + self.margin_weight * beyond.mean(-1)
