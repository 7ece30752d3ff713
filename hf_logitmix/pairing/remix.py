"""Remix: the label of a mixed input leans to the rarer class."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from hf_logitmix import papers
from hf_logitmix.pairing.plan import MixPlan
from hf_logitmix.pairing.random_pairs import RandomPairs
from hf_logitmix.part import LabelSpec
from hf_logitmix.soft_labels import check_distributions, classes_of
from hf_logitmix.step import Step

if TYPE_CHECKING:
    from hf_logitmix.training.training_set import TrainingSet


def remix_label_lam(lam: Tensor, own: Tensor, partner: Tensor, kappa: float, tau: float) -> Tensor:
    r"""The weight of the own label in Remix (Chou et al., Remix: Rebalanced Mixup, ECCV Workshops 2020).

    .. math::

        \lambda_y = \begin{cases} 0 & n_i / n_j \ge \kappa,\ \lambda < \tau
        \\ 1 & n_i / n_j \le 1 / \kappa,\ 1 - \lambda < \tau \\ \lambda & \text{otherwise} \end{cases}

    Args:
        lam: of the inputs, FloatTensor[M].
        own, partner: n_i and n_j, numbers of training examples of the two classes, [M].
        kappa, tau: as above.

    Returns:
        FloatTensor[M].
    """
    ratio = own.to(lam) / partner.to(lam)
    to_partner = (ratio >= kappa) & (lam < tau)
    to_own = (ratio * kappa <= 1) & (1 - lam < tau)
    return torch.where(to_partner, 0.0, torch.where(to_own, 1.0, lam)).to(lam.dtype)


@dataclass(frozen=True)
class Remix(RandomPairs):
    """Random pairs whose label goes to the rarer class where the counts are far apart; see `remix_label_lam`.

    The class of a soft label is the one with most mass, and the count of a class its mass in all of them.

    Attributes:
        kappa: how many times more frequent the other class must be; the paper takes 3.
        tau: below which lam the label is given up; the paper takes 0.5.
        class_counts: number of training examples of each class; None counts them before training starts.

    Raises:
        ValueError: for kappa below 1, tau outside [0, 1], or a ``label_lam``, which Remix chooses itself.
    """

    papers = (papers.REMIX,)

    kappa: float = field(default=3.0, metadata={"help": "Remix: how many times more frequent the other class must be."})
    tau: float = field(default=0.5, metadata={"help": "Remix: the lam below which a label is given up."})
    class_counts: tuple[float, ...] | None = field(
        default=None,
        metadata={"help": "Training examples of each class; else they are counted.", "command_line": False},
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.kappa >= 1:
            raise ValueError(f"kappa must be at least 1, got {self.kappa}.")
        if not 0 <= self.tau <= 1:
            raise ValueError(f"tau must be in [0, 1], got {self.tau}.")
        if self.label_lam is not None:
            raise ValueError(f"label_lam must be left out, got {self.label_lam}: Remix chooses it by the class counts.")

    def check(self, model: nn.Module, labels: LabelSpec) -> None:
        if labels.problem_type != "single_label_classification":
            raise ValueError(f"Remix counts classes and this is {labels.problem_type}: pass 'mixup', or RandomPairs().")

    def setup(self, training_set: TrainingSet) -> Remix:
        if self.class_counts is not None:
            return self
        return replace(self, class_counts=tuple(training_set.class_counts().tolist()))

    def __call__(self, inputs: Mapping[str, Any], labels: Tensor | None, step: Step) -> MixPlan:
        return self.relabel(super().__call__(inputs, labels, step), labels)

    def relabel(self, plan: MixPlan, labels: Tensor | None) -> MixPlan:
        if labels is None or self.class_counts is None:
            missing = "the labels of the batch" if labels is None else "the class counts: call setup() first"
            raise ValueError(f"Remix needs {missing}.")
        if labels.is_floating_point():
            if labels.dim() != 2:
                raise ValueError("Remix is defined for class ids and soft labels, and these are numbers: pass 'mixup'.")
            check_distributions(labels)
        plan = plan.to(labels.device)
        counts = torch.tensor(self.class_counts).to(labels.device, non_blocking=True)[classes_of(labels)]
        own, partner = counts[: len(plan.lam)], counts[plan.partner]
        return plan._replace(label_lam=remix_label_lam(plan.lam, own, partner, self.kappa, self.tau))
