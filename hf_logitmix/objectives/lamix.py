"""LaMix: one mixed input, at 1/2, for every mix of two labels, and a target that a second head has a say in."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from hf_logitmix.moment import Moment
from hf_logitmix.objectives.base import Loss, Objective, at_least_float32
from hf_logitmix.objectives.mixed import mixed_cross_entropy
from hf_logitmix.output import MixedOutput, Rows
from hf_logitmix.plan import MixPlan
from hf_logitmix.second_head import SecondHead

if TYPE_CHECKING:
    from hf_logitmix.training_set import TrainingSet

_LABEL_LAMS = ("uniform", "half")


def lamix(
    logits: Tensor,
    soft_label_logits: Tensor | None,
    labels: Tensor,
    plan: MixPlan,
    *,
    beta: float = 0.5,
    targets: Tensor | None = None,
) -> Tensor:
    r"""The loss of each row, :math:`H(z, \beta (\lambda T_y + (1-\lambda) T_{y_\pi}) + (1-\beta) p)`,

    with the global soft label :math:`p = \mathrm{softmax}(\sigma(W_t S))`. Gradients flow through the target too, which
    is how W_t learns. (Bypassing the Random Input Mixing in Mixup, 2021, equations 7 to 11.)

    Args:
        logits: z, FloatTensor[M, K].
        soft_label_logits: :math:`W_t S`, FloatTensor[M, K]; None where beta is 1.
        labels: LongTensor[B] class ids.
        plan: partner LongTensor[M] and lam FloatTensor[M], the weight of the own label.
        beta: share of the given labels in the target.
        targets: FloatTensor[K, K] or None.

    Returns:
        FloatTensor[M].
    """
    local = mixed_cross_entropy(logits, labels, plan, targets)
    if beta == 1:
        return local
    if soft_label_logits is None:
        raise ValueError(f"beta={beta} needs soft_label_logits, the second head's outputs: pass them, or beta=1.0.")
    soft = at_least_float32(soft_label_logits).sigmoid().softmax(-1)
    everywhere = -(soft * F.log_softmax(at_least_float32(logits), dim=-1)).sum(-1)
    return beta * local + (1 - beta) * everywhere


@dataclass(frozen=True)
class LaMix(Objective):
    r"""LaMix, label-driven mixup (Bypassing the Random Input Mixing in Mixup, 2021).

    Batches alternate: in even optimizer steps the originals, in odd ones their mixed rows, so a step costs what a
    vanilla one does. The loss is that of `lamix`. Inputs meet at 1/2 (the mixing's ``input_lam``); the plan's lam is
    for the labels. While `attached`, the logits it is given are [M, 2K]: the classifier's, then the second head's.

    Attributes:
        beta: share of the given labels in the target, in [0, 1]. 1 builds no second head: the paper's ablation without
            the soft label (its table 8), and its setting with PuzzleMix inputs.
        detach_target: stop the gradient through the target; the second head then learns nothing.
        label_lam: ``uniform`` takes the plan's lam (the paper's equations 2 and 10), ``half`` 1/2 (its figure 1).
        clean_batches: alternate with originals; False is the paper's ablation (its table 7), where accuracy collapses.
        mixed, learned: set by `at` and `prepare`.

    Raises:
        ValueError: for beta outside [0, 1] or an unknown label_lam.
    """

    beta: float = 0.5
    detach_target: bool = False
    label_lam: str = "uniform"
    clean_batches: bool = True
    mixed: bool = field(default=True, repr=False, metadata={"option": False})
    learned: nn.Module | None = field(default=None, repr=False, compare=False, metadata={"option": False})
    drops_clean_rows: ClassVar[bool] = True
    needs_distributions: ClassVar[bool] = True
    needs_input_lam: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if not 0 <= self.beta <= 1:
            raise ValueError(f"beta={self.beta} is outside [0, 1]: it is the share of the given labels in the target.")
        if self.label_lam not in _LABEL_LAMS:
            raise ValueError(f"label_lam={self.label_lam!r} is unknown: pass one of {', '.join(_LABEL_LAMS)}.")

    @property
    def rows(self) -> Rows:  # type: ignore[override]
        return "mixed" if self.mixed else "clean"

    def at(self, moment: Moment) -> LaMix:
        return replace(self, mixed=moment.step % 2 == 1 or not self.clean_batches)

    def check(self, num_labels: int, problem_type: str) -> None:
        if problem_type != "single_label_classification":
            raise ValueError(f"LaMix is defined for classes and this is {problem_type}: pass 'mixup' or 'logitmix'.")

    def prepare(self, training_set: TrainingSet) -> LaMix:
        if self.beta == 1:
            return self
        head = SecondHead(training_set.model, training_set.num_labels).requires_grad_(not self.detach_target)
        if (inputs := training_set.first_batch()) is not None:
            head.check(training_set.model, inputs)
        return replace(self, learned=head)

    def attached(self, model: nn.Module) -> AbstractContextManager[Any]:
        return self.learned.attached(model) if isinstance(self.learned, SecondHead) else nullcontext()

    def __call__(self, output: MixedOutput, labels: Tensor, targets: Tensor | None = None) -> Loss:
        logits, plan = (output.mixed_logits, output.plan) if self.mixed else (output.logits, _with_itself(labels))
        assert logits is not None
        soft = None
        if isinstance(self.learned, SecondHead):
            num_labels = self.learned.linear.out_features
            if logits.shape[-1] != 2 * num_labels:
                raise RuntimeError(
                    f"the second head's outputs are missing from logits of shape {tuple(logits.shape)}: this model's "
                    "classifier is not its last linear layer, or is kept in evaluation mode; pass beta=1.0."
                )
            logits, soft = logits.split(num_labels, -1)
            soft = soft.detach() if self.detach_target else soft
        if self.label_lam == "half" and self.mixed:
            plan = plan._replace(lam=torch.full_like(plan.lam, 0.5))
        loss = lamix(logits, soft, labels, plan, beta=self.beta, targets=targets).mean()
        return Loss(loss, {"mix" if self.mixed else "cls": loss})


def _with_itself(labels: Tensor) -> MixPlan:
    return MixPlan(torch.arange(len(labels), device=labels.device), torch.ones(len(labels), device=labels.device))
