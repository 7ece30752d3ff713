"""LaMix: one mixed input, at 1/2, for every mix of two labels, and a target that a second head has a say in."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor, nn

from hf_logitmix import papers
from hf_logitmix.criteria import CrossEntropy, RowLoss
from hf_logitmix.criteria.base import Criterion, at_least_float32
from hf_logitmix.objectives.base import Objective, Term, Terms
from hf_logitmix.objectives.second_head import SecondHead
from hf_logitmix.output import MixedOutput, Rows
from hf_logitmix.part import LabelSpec
from hf_logitmix.step import Step

if TYPE_CHECKING:
    from hf_logitmix.training.training_set import TrainingSet


def with_soft_label(
    local: Tensor,
    logits: Tensor,
    soft_label_logits: Tensor | None,
    beta: float,
    criterion: Criterion | None = None,
    weights: Tensor | None = None,
) -> Tensor:
    r"""The loss of each row, :math:`\beta\, d(z, \lambda T_y + (1-\lambda) T_{y_\pi}) + (1-\beta)\, d(z, p)`,

    with the global soft label :math:`p = \mathrm{softmax}(\sigma(W_t S))`. Gradients flow through the target too, which
    is how W_t learns. (Bypassing the Random Input Mixing in Mixup, 2021, equations 7 to 11.)

    Args:
        local: FloatTensor[M], the rows' loss against their (mixed) labels.
        logits: z, FloatTensor[M, K].
        soft_label_logits: :math:`W_t S`, FloatTensor[M, K]; None where beta is 1.
        beta: share of the given labels in the target.
        criterion: d; None is cross-entropy.
        weights: of the rows, FloatTensor[M], which ``local`` has in it; None is 1.

    Returns:
        FloatTensor[M].
    """
    if beta == 1:
        return local
    if soft_label_logits is None:
        raise ValueError(f"beta={beta} needs soft_label_logits, the second head's outputs: pass them, or beta=1.0.")
    soft = at_least_float32(soft_label_logits).sigmoid().softmax(-1)
    everywhere = (criterion or CrossEntropy())(at_least_float32(logits), soft)
    everywhere = everywhere if weights is None else weights.to(everywhere) * everywhere
    return beta * local + (1 - beta) * everywhere


@dataclass(frozen=True)
class LaMix(Objective):
    r"""LaMix, label-driven mixup (Bypassing the Random Input Mixing in Mixup, 2021).

    Batches alternate: in even optimizer steps the originals, in odd ones their mixed rows, so a step costs what a
    vanilla one does. The loss is that of `with_soft_label`. In the paper inputs meet at 1/2 and the lam of labels is
    uniform, which is a pairing: ``RandomPairs(lam=Constant(0.5), label_lam=Uniform())``.

    Attributes:
        beta: share of the given labels in the target, in [0, 1]. 1 builds no second head: the paper's ablation without
            the soft label (its table 8), and its setting with PuzzleMix inputs.
        detach_target: stop the gradient through the target; the second head then learns nothing.
        clean_batches: alternate with originals; False is the paper's ablation (its table 7), where accuracy collapses.

    Raises:
        ValueError: for beta outside [0, 1].
    """

    equation = (
        r"L = \beta H(\tilde z, \lambda T_y + (1 - \lambda) T_{y_\pi}) + (1 - \beta) H(\tilde z, "
        r"\mathrm{softmax}(\sigma(W_t S)))"
    )
    papers = (papers.LAMIX,)

    beta: float = field(default=0.5, metadata={"help": "LaMix: share of the given labels in the target."})
    detach_target: bool = field(default=False, metadata={"help": "LaMix: stop the gradient through the target."})
    clean_batches: bool = field(
        default=True, metadata={"help": "LaMix: alternate with batches of originals (the paper's setting)."}
    )
    needs_distributions: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if not 0 <= self.beta <= 1:
            raise ValueError(f"beta must be in [0, 1], got {self.beta}: it is the share of the given labels.")

    @property
    def kinds(self) -> frozenset[Rows]:  # type: ignore[override]
        return frozenset({"clean", "mixed"}) if self.clean_batches else frozenset({"mixed"})

    def rows(self, step: Step) -> Rows:
        return "mixed" if step.index % 2 == 1 or not self.clean_batches else "clean"

    def check(self, model: Any, labels: LabelSpec) -> None:
        if labels.problem_type != "single_label_classification":
            raise ValueError(
                f"LaMix is defined for classes and this is {labels.problem_type}: pass 'mixup' or 'logitmix'."
            )

    def setup(self, training_set: TrainingSet) -> Objective:
        if self.beta == 1:
            return self
        head = SecondHead(training_set.model, training_set.num_labels).requires_grad_(not self.detach_target)
        if (inputs := training_set.first_batch()) is not None:
            head.check(training_set.model, inputs)
        return LaMixWithHead(self, head)

    def __call__(self, output: MixedOutput, labels: Tensor, loss: RowLoss, inputs: Mapping[str, Any]) -> Terms:
        return self.terms(output, None, labels, loss)

    def terms(self, output: MixedOutput, soft: Tensor | None, labels: Tensor, loss: RowLoss) -> Terms:
        """The loss of the rows that there are, mixed or clean, given the second head's outputs for them."""
        if output.mixed_logits is not None:
            local = loss.mixed(output.mixed_logits, labels, output.plan)
            weights = loss.weights_of(output.plan)
            rows = with_soft_label(local, output.mixed_logits, soft, self.beta, loss.criterion, weights)
            return {"mix": Term(rows)}
        assert output.logits is not None
        local = loss(output.logits, labels)
        return {"cls": Term(with_soft_label(local, output.logits, soft, self.beta, loss.criterion, loss.weights))}


class LaMixWithHead(Objective):
    """`LaMix` in training, with its second head, whose outputs stand beside the classifier's in the logits, [M, 2K]."""

    needs_distributions: ClassVar[bool] = True

    def __init__(self, options: LaMix, head: SecondHead) -> None:
        self.options = options
        self.learned: nn.Module = head
        self.head = head

    @property
    def kinds(self) -> frozenset[Rows]:  # type: ignore[override]
        return self.options.kinds

    def rows(self, step: Step) -> Rows:
        return self.options.rows(step)

    def install(self, model: nn.Module) -> AbstractContextManager[Any]:
        return self.head.install(model)

    def __call__(self, output: MixedOutput, labels: Tensor, loss: RowLoss, inputs: Mapping[str, Any]) -> Terms:
        own, soft = zip(*map(self._split, (output.logits, output.mixed_logits)), strict=True)
        there = next(one for one in reversed(soft) if one is not None)
        there = there.detach() if self.options.detach_target else there
        return self.options.terms(MixedOutput(own[0], own[1], output.plan), there, labels, loss)

    def _split(self, logits: Tensor | None) -> tuple[Tensor | None, Tensor | None]:
        num_labels = self.head.linear.out_features
        if logits is None:
            return None, None
        if logits.shape[-1] != 2 * num_labels:
            raise RuntimeError(
                f"the second head's outputs are missing from logits of shape {tuple(logits.shape)}: this model's "
                "classifier is not its last linear layer, or is kept in evaluation mode; pass beta=1.0."
            )
        own, soft = torch.split(logits, num_labels, -1)
        return own, soft
