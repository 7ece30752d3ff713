"""What every criterion takes and gives."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.nn import functional as F

from hf_logitmix.pairing.plan import MixPlan
from hf_logitmix.part import LabelSpec, Part
from hf_logitmix.ranges import check_range
from hf_logitmix.soft_labels import check_distributions


class Criterion(Part):
    """How far one row of logits is from one target; a new kind overrides the call.

    Attributes:
        problem_types: of transformers' configurations, for which it is defined.
        takes_rows: whether a target may be a row of numbers; else class ids alone, which is one-hot targets.
        mixes_targets: whether a mixed row is compared with the mix of its two targets; else with each of them, and the
            losses are mixed, which is the same for criteria that are linear in the target.
    """

    problem_types: ClassVar[tuple[str, ...]] = ("single_label_classification",)
    takes_rows: ClassVar[bool] = True
    mixes_targets: ClassVar[bool] = False

    def check(self, model: Any, labels: LabelSpec) -> None:
        """Raise ValueError where the criterion is undefined for this kind of head or of labels."""
        if labels.problem_type not in self.problem_types:
            raise ValueError(
                f"criterion={self} is for {' and '.join(self.problem_types)}, and this is {labels.problem_type}: leave "
                "criterion out, which takes the one that fits the labels."
            )
        if labels.soft and not self.takes_rows:
            raise ValueError(
                f"criterion={self} is defined for class ids alone, and these labels are rows of probabilities: pass "
                "another criterion."
            )

    def __call__(self, logits: Tensor, target: Tensor) -> Tensor:
        """The loss of each row, FloatTensor[M], in float32 or better.

        Args:
            logits: FloatTensor[M, K].
            target: FloatTensor[M, K] rows; of classes also LongTensor[M] ids; of regression FloatTensor[M].
        """
        raise NotImplementedError


@dataclass(frozen=True)
class RowLoss:
    """A criterion with the targets that stand for labels and the weights of examples: what an objective measures by.

    Attributes:
        criterion: how far a row of logits is from a target.
        matrix: FloatTensor[K, K] whose row ``y`` stands for class ``y``; None is one-hot. Only for classes.
        weights: FloatTensor[B], what the loss of each example of the batch is multiplied by; None is 1.
        soft_labels: whether FloatTensor[B, K] labels are rows r of probabilities of classes, whose target is ``r T``;
            else they are multi-label.
    """

    criterion: Criterion
    matrix: Tensor | None = None
    weights: Tensor | None = None
    soft_labels: bool = False

    def __call__(self, logits: Tensor, labels: Tensor) -> Tensor:
        r"""The loss :math:`w_i\, d(z_i, T_{y_i})` of each row of a batch against its own label, FloatTensor[B].

        No label is left out: -100, which torch's own cross-entropy ignores, is outside 0..K-1 like any other. On a
        GPU, which is not waited for, the lookup of such a label is a device-side assert of CUDA.

        Args:
            logits: FloatTensor[B, K].
            labels: LongTensor[B] class ids, FloatTensor[B] for regression, or FloatTensor[B, K], which is soft labels
                or multi-label as ``soft_labels`` says.

        Raises:
            ValueError: for a matrix with real-valued or multi-hot labels, for shapes that do not fit, and, where they
                are not on a GPU, for class ids outside 0..K-1 and soft labels that do not sum to 1.
        """
        rows = self._rows(logits, labels)
        return rows if self.weights is None else self.weights.to(rows) * rows

    def mixed(self, mixed_logits: Tensor, labels: Tensor, plan: MixPlan) -> Tensor:
        r"""The loss of each mixed row against its mixed label, FloatTensor[M].

        For classes :math:`\lambda w_i\, d(\tilde z, T_y) + (1-\lambda) w_\pi\, d(\tilde z, T_{y_\pi})`, which of soft
        labels and cross-entropy is that of the mixed row :math:`\lambda r_i + (1-\lambda) r_\pi`; regression,
        multi-label and a criterion that ``mixes_targets`` mix the target and the weight, :math:`\lambda y + (1-\lambda)
        y_\pi` (Zhang et al., mixup, 2018). Lam is the plan's ``label_lam`` where it has one.

        Args:
            mixed_logits: FloatTensor[M, K].
            labels: of the whole batch.
            plan: of M rows.
        """
        mixed_logits = at_least_float32(mixed_logits)
        lam = plan.weight_of_label.to(mixed_logits)
        own, other = labels[: len(plan.partner)], labels[plan.partner]
        if (labels.is_floating_point() and not self.soft_labels) or self.criterion.mixes_targets:
            own, other = self._as_numbers(mixed_logits, own), self._as_numbers(mixed_logits, other)
            share = lam.reshape(-1, *[1] * (own.dim() - 1))
            rows = self.criterion(mixed_logits, share * own + (1 - share) * other)
            weights = self.weights_of(plan)
            return rows if weights is None else weights.to(rows) * rows
        of_own, of_other = self._rows(mixed_logits, own), self._rows(mixed_logits, other)
        if self.weights is not None:
            weights = self.weights.to(of_own)
            of_own, of_other = weights[: len(of_own)] * of_own, weights[plan.partner] * of_other
        return lam * of_own + (1 - lam) * of_other

    def weights_of(self, plan: MixPlan) -> Tensor | None:
        r"""FloatTensor[M], the weights of mixed rows as a whole, :math:`\lambda w_i + (1-\lambda) w_\pi`; None is 1."""
        if self.weights is None:
            return None
        lam = plan.weight_of_label.to(self.weights)
        return lam * self.weights[: len(plan.partner)] + (1 - lam) * self.weights[plan.partner]

    def _rows(self, logits: Tensor, labels: Tensor) -> Tensor:
        logits = at_least_float32(logits)
        return self.criterion(logits, self._target(logits, labels))

    def _as_numbers(self, logits: Tensor, labels: Tensor) -> Tensor:
        """The targets of labels as what can be mixed: FloatTensor[B, K] rows, also of class ids, or FloatTensor[B]."""
        target = self._target(logits, labels)
        return target if target.is_floating_point() else F.one_hot(target, logits.shape[-1]).to(logits.dtype)

    def _target(self, logits: Tensor, labels: Tensor) -> Tensor:
        """What the criterion compares logits with: class ids, or rows and numbers of the logits' type."""
        num_labels = logits.shape[-1]
        matrix = None if self.matrix is None else self.matrix.to(logits.device, logits.dtype)
        if matrix is not None and matrix.shape != (num_labels, num_labels):
            raise ValueError(f"targets of shape {tuple(matrix.shape)} do not fit {num_labels} classes: pass [K, K].")
        if self.soft_labels:
            return _soft_targets(labels, logits, matrix)
        if labels.is_floating_point():
            labels = labels.to(logits.dtype)
            if labels.dim() == 2 and "multi_label_classification" not in self.criterion.problem_types:
                raise ValueError(
                    f"criterion={self.criterion} is for classes, and labels are rows that are not said to be "
                    "probabilities of them: set problem_type='single_label_classification' in the model's config "
                    "(soft_labels=True of a plain function) if they are."
                )
            if matrix is not None:
                raise ValueError(
                    "targets are rows for class ids: they are undefined for regression and multi-label labels."
                )
            return labels
        if labels.dim() != 1 or len(labels) != len(logits):
            raise ValueError(
                f"class ids of shape {tuple(labels.shape)} do not fit logits of shape {tuple(logits.shape)}: pass [B] "
                "integers, or floats of shape [B, K] for multi-label and soft labels."
            )
        labels = labels.long()
        if not labels.is_cuda:
            check_range(labels, 0, num_labels - 1, "label", "take such examples out; none is ignored, not -100 either")
        if matrix is None:
            return labels
        return F.embedding(labels, matrix)  # a lookup that knows no index from the end


def _soft_targets(labels: Tensor, logits: Tensor, matrix: Tensor | None) -> Tensor:
    """The targets r T of soft labels r, FloatTensor[B, K]."""
    if not labels.is_floating_point() or labels.shape != logits.shape:
        raise ValueError(
            f"soft labels are {labels.dtype} of shape {tuple(labels.shape)} and logits of shape {tuple(logits.shape)}: "
            "pass floats of shape [B, K]."
        )
    labels = labels.to(logits.dtype)
    check_distributions(labels)
    if matrix is None:
        return labels
    with torch.autocast(logits.device.type, enabled=False):  # which would multiply in half precision
        return labels @ matrix


def check_gamma(gamma: object, wanted: str) -> float:
    """A focusing parameter as a float, from a number or its text on a command line.

    Raises:
        ValueError: for anything that is no number >= 0, with what is ``wanted``.
    """
    try:
        number = float(gamma)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        number = math.nan
    if not 0 <= number < math.inf:
        raise ValueError(f"gamma must be {wanted}, got {gamma!r}.")
    return number


def only_class_ids(criterion: Criterion, target: Tensor) -> None:
    """Raise ValueError for rows of targets, where a criterion is defined for class ids alone."""
    if target.is_floating_point():
        raise ValueError(
            f"criterion={criterion} is defined for class ids alone, and these targets are rows: leave targets and soft "
            "labels out, or pass another criterion."
        )


def at_least_float32(tensor: Tensor) -> Tensor:
    """Half precision becomes float32; float32 and float64 stay what they are."""
    return tensor.float() if tensor.dtype in (torch.float16, torch.bfloat16) else tensor
