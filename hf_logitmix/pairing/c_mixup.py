"""C-Mixup: partners whose labels are near, for regression."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from hf_logitmix import papers
from hf_logitmix.pairing.base import first_tensor
from hf_logitmix.pairing.plan import MixPlan
from hf_logitmix.pairing.random_pairs import RandomPairs
from hf_logitmix.part import LabelSpec
from hf_logitmix.step import Step

if TYPE_CHECKING:
    from hf_logitmix.training.training_set import TrainingSet


@dataclass(frozen=True)
class CMixup(RandomPairs):
    r"""Partners are drawn by how near their labels are.

    Partner j of i has :math:`P(j \mid i) \propto \exp(-(y_i - y_j)^2 / 2 \sigma^2)`, :math:`j \ne i`.

    Yao et al., C-Mixup: Improving Generalization in Regression, NeurIPS 2022. They draw from the whole training set and
    tune sigma to each dataset; here partners are in the batch, and labels are divided by the standard deviation of the
    training set, so that one sigma has a meaning for every dataset.

    Attributes:
        bandwidth: sigma, in standard deviations of the labels. 1 is ours.
        label_scale: the standard deviation; None finds it before training starts.

    Raises:
        ValueError: for a bandwidth or scale that is not positive, and partners="length", which would be another choice.
    """

    papers = (papers.C_MIXUP,)

    bandwidth: float = field(
        default=1.0, metadata={"help": "C-Mixup: width of the kernel, in standard deviations of the labels."}
    )
    label_scale: float | None = field(
        default=None,
        metadata={"help": "C-Mixup: standard deviation of the labels; else that of the training set."},
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        for name, value in (("bandwidth", self.bandwidth), ("label_scale", self.label_scale)):
            if value is not None and not 0 < value < math.inf:
                raise ValueError(f"{name} must be a number > 0, got {value}.")
        if self.partners != "any":
            raise ValueError(f"partners must be 'any', got {self.partners!r}: C-Mixup chooses them by their labels.")

    def check(self, model: nn.Module, labels: LabelSpec) -> None:
        if labels.problem_type != "regression":
            raise ValueError(f"pairing={self} is for regression and this is {labels.problem_type}: pass 'mixup'.")

    def setup(self, training_set: TrainingSet) -> CMixup:
        if self.label_scale is not None:
            return self
        scale = float(training_set.numbers().std())
        return replace(self, label_scale=scale if scale > 0 else 1.0)

    def __call__(self, inputs: Mapping[str, Any], labels: Tensor | None, step: Step) -> MixPlan:
        if labels is None or self.label_scale is None:
            missing = "the labels of the batch" if labels is None else "the spread of the labels: call setup() first"
            raise ValueError(f"C-Mixup needs {missing}.")
        plan, size = super().__call__(inputs, labels, step), len(first_tensor(inputs))
        if size == 1:
            return plan
        apart = (labels.reshape(-1, 1) - labels.reshape(1, -1)).float() / self.label_scale
        logits = (-apart.square() / (2 * self.bandwidth**2)).fill_diagonal_(-math.inf)
        # the largest of logits plus Gumbel noise is a draw from their softmax; the noise is drawn on the CPU
        uniform = torch.rand(size, size, generator=step.generator("partners"), dtype=torch.float64)
        noise = -(-uniform.clamp_min(1e-300).log()).log()
        partner = (logits + noise.to(logits.device, logits.dtype, non_blocking=True)).argmax(1)
        return plan._replace(partner=partner[: len(plan.partner)])
