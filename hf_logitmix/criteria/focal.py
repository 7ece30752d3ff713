"""Focal loss and dual focal loss: what is classified well counts less."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn import functional as F

from hf_logitmix import papers
from hf_logitmix.criteria.base import Criterion, check_gamma, only_class_ids


@dataclass(frozen=True)
class Focal(Criterion):
    r"""Focal loss: rows that are classified well count less.

    It is :math:`-\sum_k T_k (1 - p_k)^\gamma \log p_k` with :math:`p = \mathrm{softmax}(z)`.

    Lin et al., Focal Loss for Dense Object Detection, ICCV 2017; Mukhoti et al., Calibrating Deep Neural Networks using
    Focal Loss, NeurIPS 2020, whose best fixed gamma is 3.

    Attributes:
        gamma: >= 0; 0 is cross-entropy. ``"sd53"`` is Mukhoti's FLSD-53: 5 for rows whose class has p < 0.2, else 3.
            Of a row of targets the class is the one with most mass.

    Raises:
        ValueError: for any other gamma.
    """

    papers = (papers.FOCAL, papers.FOCAL_CALIBRATION)

    gamma: float | str = field(
        default=3.0, metadata={"help": "Focal losses: by how much well classified rows count less; focal: or sd53."}
    )

    def __post_init__(self) -> None:
        if self.gamma != "sd53":
            object.__setattr__(self, "gamma", check_gamma(self.gamma, "a number >= 0 or 'sd53'"))

    def __call__(self, logits: Tensor, target: Tensor) -> Tensor:
        log_p = F.log_softmax(logits, dim=-1)
        own = target if not target.is_floating_point() else target.argmax(-1)
        gamma: float | Tensor
        if self.gamma == "sd53":
            of_class = log_p.gather(-1, own.unsqueeze(-1)).exp().detach()
            gamma = torch.where(of_class < 0.2, 5.0, 3.0).to(log_p)
        else:
            gamma = float(self.gamma)
        rows = (1 - log_p.exp()).clamp_min(torch.finfo(log_p.dtype).tiny) ** gamma * log_p
        if target.is_floating_point():
            return -(target * rows).sum(-1)
        return -rows.gather(-1, own.unsqueeze(-1)).squeeze(-1)


@dataclass(frozen=True)
class DualFocal(Criterion):
    r"""Dual focal loss, :math:`-(1 - p_y + p_j)^\gamma \log p_y`.

    j is the largest other class with :math:`p_j < p_y`, and :math:`p_j = 0` where there is none (Tao et al., Dual Focal
    Loss for Calibration, ICML 2023).

    Attributes:
        gamma: >= 0; the paper's code takes 5.

    Raises:
        ValueError: for any other gamma; for rows of targets, for which it is not defined.
    """

    papers = (papers.DUAL_FOCAL,)

    gamma: float | str = field(
        default=5.0, metadata={"help": "Focal losses: by how much well classified rows count less; focal: or sd53."}
    )

    takes_rows: ClassVar[bool] = False

    def __post_init__(self) -> None:
        object.__setattr__(self, "gamma", check_gamma(self.gamma, "a number >= 0"))

    def __call__(self, logits: Tensor, target: Tensor) -> Tensor:
        only_class_ids(self, target)
        log_p = F.log_softmax(logits, dim=-1)
        p = log_p.exp()
        own = p.gather(-1, target.unsqueeze(-1))
        others = torch.where(p < own, p, torch.zeros_like(p)).amax(-1)
        weight = (1 - own.squeeze(-1) + others).clamp_min(torch.finfo(p.dtype).tiny) ** float(self.gamma)
        return -weight * log_p.gather(-1, target.unsqueeze(-1)).squeeze(-1)
