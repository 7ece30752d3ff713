"""The losses as plain functions, for training loops of your own: means over a batch.

Class ids outside 0..K-1 (such as -100, which torch's own losses ignore), partners outside the batch and lam outside
[0, 1] are a ValueError. On a GPU, which is not waited for, they are a device-side assert of CUDA.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from torch import Tensor

from hf_logitmix.criteria import Focal, RowLoss, criterion_of
from hf_logitmix.objectives import LogitMix, MixedOutput, total_of
from hf_logitmix.objectives.lamix import with_soft_label
from hf_logitmix.objectives.mit import decoupled
from hf_logitmix.pairing.plan import MixPlan, check_plan
from hf_logitmix.part import LabelSpec
from hf_logitmix.ranges import check_all, check_range

_APART = 1e-3  # of two lams whose mixes are told apart


class LogitMixLoss(NamedTuple):
    """The weighted sum first, then the three unweighted terms. All are scalars."""

    total: Tensor
    mix: Tensor
    cls: Tensor
    sim: Tensor


def logitmix_loss(
    logits: Tensor,
    mixed_logits: Tensor,
    labels: Tensor,
    plan: MixPlan,
    *,
    weights: Sequence[float] = (1.0, 1.0, 1.0),
    similarity: str = "mse",
    targets: Tensor | None = None,
    soft_labels: bool = False,
) -> LogitMixLoss:
    r"""LogitMix (IJCAI 2022).

    .. math::

        L = w_{mix} \underbrace{\lambda H(\tilde z, T_y) + (1-\lambda) H(\tilde z, T_{y_\pi})}_{mix}
          + w_{cls} \underbrace{H(z, T_y)}_{cls}
          + w_{sim} \underbrace{\tfrac1K \lVert \lambda z + (1-\lambda) z_\pi - \tilde z \rVert^2}_{sim}

    each a mean over the batch. The formula of ``sim`` is that of ``similarity="mse"``, the authors' released code.

    Args:
        logits: FloatTensor[B, K] of the clean batch.
        mixed_logits: FloatTensor[M, K] of the mixed batch; M is the length of the plan, usually B.
        labels: LongTensor[B] class ids, FloatTensor[B] for regression (K = 1), FloatTensor[B, K] multi-label or soft.
        plan: partner LongTensor[M] and lam FloatTensor[M].
        weights: of mix, cls and sim.
        similarity: ``mse``, ``l2`` (the poster), ``mse_logsoftmax`` or ``mse_softmax``.
        targets: FloatTensor[K, K], a row a class; None is one-hot.
        soft_labels: whether labels are FloatTensor[B, K] rows of probabilities of classes, which sum to 1.

    Raises:
        ValueError: for impossible weights, an unknown similarity, targets without classes, and labels or a plan out of
            range.
    """
    check_plan(plan, len(logits))
    objective = LogitMix(weights=weights, similarity=similarity)
    kind = "single_label_classification" if soft_labels or not labels.is_floating_point() else "other"
    objective.check(None, LabelSpec(logits.shape[-1], kind))
    terms = objective(MixedOutput(logits, mixed_logits, plan), labels, _row_loss(labels, targets, soft_labels), {})
    return LogitMixLoss(total_of(terms), **{name: term.rows.mean() for name, term in terms.items()})


def mixed_cross_entropy(
    mixed_logits: Tensor,
    labels: Tensor,
    plan: MixPlan,
    *,
    targets: Tensor | None = None,
    soft_labels: bool = False,
) -> Tensor:
    r"""Mixup's loss, the mean over the batch of :math:`\lambda H(\tilde z, T_y) + (1-\lambda) H(\tilde z, T_{y_\pi})`.

    Args:
        mixed_logits: FloatTensor[M, K]; labels, plan, targets and soft_labels as in `logitmix_loss`.

    Returns:
        a scalar.

    Raises:
        ValueError: for targets without classes, and labels or a plan out of range.
    """
    check_plan(plan, len(labels))
    return _row_loss(labels, targets, soft_labels).mixed(mixed_logits, labels, plan).mean()


def focal_loss(
    logits: Tensor,
    labels: Tensor,
    *,
    gamma: float | str = 3.0,
    targets: Tensor | None = None,
    soft_labels: bool = False,
) -> Tensor:
    r"""Focal loss, the mean over the batch of :math:`-\sum_k T_{yk} (1 - p_k)^\gamma \log p_k`; see `Focal`.

    Args:
        logits: FloatTensor[B, K].
        labels: LongTensor[B] class ids, or FloatTensor[B, K] soft labels.
        gamma: >= 0, or ``"sd53"``: 5 where the class has p < 0.2, else 3.
        targets: FloatTensor[K, K], a row a class; None is one-hot.
        soft_labels: as in `logitmix_loss`.

    Returns:
        a scalar.

    Raises:
        ValueError: for any other gamma, and for labels that are neither class ids 0..K-1 nor said to be soft.
    """
    _check_classes("focal_loss", labels, soft_labels)
    return RowLoss(Focal(gamma), targets, soft_labels=soft_labels)(logits, labels).mean()


def lamix_loss(
    logits: Tensor,
    soft_label_logits: Tensor | None,
    labels: Tensor,
    plan: MixPlan,
    *,
    beta: float = 0.5,
    targets: Tensor | None = None,
    soft_labels: bool = False,
) -> Tensor:
    r"""LaMix's loss (Bypassing the Random Input Mixing in Mixup, 2021, equations 7 to 11), the mean over the batch of

    .. math:: H(z,\; \beta (\lambda T_y + (1-\lambda) T_{y_\pi}) + (1-\beta)\, \mathrm{softmax}(\sigma(t)))

    Gradients flow through t on both sides: detach it to stop that.

    Args:
        logits: z, FloatTensor[M, K], of the mean of two inputs; of the originals with a plan of themselves.
        soft_label_logits: t, FloatTensor[M, K], the second head's outputs; None where beta is 1.
        labels: LongTensor[B] class ids, or FloatTensor[B, K] soft labels.
        plan: partner LongTensor[M] and lam FloatTensor[M], here the weight of the own label.
        beta: share of the given labels in the target.
        targets: FloatTensor[K, K] or None.
        soft_labels: as in `logitmix_loss`.

    Returns:
        a scalar.

    Raises:
        ValueError: for beta outside [0, 1], without soft_label_logits unless beta is 1, and for labels or a plan out of
            range.
    """
    if not 0 <= beta <= 1:
        raise ValueError(f"beta={beta} is outside [0, 1]: it is the share of the given labels in the target.")
    _check_classes("lamix_loss", labels, soft_labels)
    check_plan(plan, len(labels))
    local = _row_loss(labels, targets, soft_labels).mixed(logits, labels, plan)
    return with_soft_label(local, logits, soft_label_logits, beta).mean()


def mit_loss(
    mixed_logits_1: Tensor,
    mixed_logits_2: Tensor,
    labels: Tensor,
    plan: MixPlan,
    *,
    second_lam: Tensor,
    targets: Tensor | None = None,
    soft_labels: bool = False,
) -> Tensor:
    r"""MIT-L's loss (Wang et al., On the Pitfall of Mixup for Uncertainty Calibration, 2023), the mean over pairs of

    .. math:: \tfrac12 H(z_i, T_{y_i}) + \tfrac12 H(z_j, T_{y_j})

    with the logits that `hf_logitmix.objectives.mit.decoupled` recovers from two mixes of the same pair. Keep the two
    lams well apart: by default the paper's code takes 1/2 or more.

    Args:
        mixed_logits_1: FloatTensor[M, K], of the mixes with the plan's lam.
        mixed_logits_2: FloatTensor[M, K], of those with ``second_lam`` and the same partners.
        labels: LongTensor[B] class ids, FloatTensor[B] for regression or FloatTensor[B, K] multi-label.
        plan: partner LongTensor[M] and lam FloatTensor[M].
        second_lam: FloatTensor[M] in [0, 1], another number than lam in every row.
        targets: FloatTensor[K, K] or None.
        soft_labels: whether FloatTensor[B, K] labels are rows of probabilities, not multi-label.

    Returns:
        a scalar.

    Raises:
        ValueError: for two lams of one row that are nearer than 0.001, for shapes that do not fit, and for labels, lams
            or a plan out of range.
    """
    check_plan(plan, len(labels))
    count = len(plan.partner)
    if not isinstance(second_lam, Tensor) or second_lam.shape != plan.lam.shape:
        told = tuple(second_lam.shape) if isinstance(second_lam, Tensor) else second_lam
        raise ValueError(f"second_lam must have a number for each of the {count} rows of the plan, got {told}.")
    if mixed_logits_1.shape != mixed_logits_2.shape or len(mixed_logits_1) != count:
        shapes = f"{tuple(mixed_logits_1.shape)} and {tuple(mixed_logits_2.shape)}"
        raise ValueError(f"mixed logits of shapes {shapes} do not fit a plan of {count} rows: pass [{count}, K] twice.")
    check_range(second_lam, 0, 1, "second_lam", "pass the weight of the example itself in the second mix")
    apart = (plan.lam - second_lam).abs() >= _APART
    check_all(apart, f"lam and second_lam are nearer than {_APART} in a row, so its two mixes are one: pass two.")
    own, other = decoupled(mixed_logits_1, mixed_logits_2, plan.lam, second_lam)
    loss = _row_loss(labels, targets, soft_labels)
    return (loss(own, labels[: len(own)]) + loss(other, labels[plan.partner])).mean() / 2


def _check_classes(name: str, labels: Tensor, soft_labels: bool) -> None:
    if labels.is_floating_point() and not soft_labels:
        raise ValueError(
            f"{name} is for class ids, LongTensor[B], and the labels are {labels.dtype}: pass soft_labels=True if they "
            "are rows of probabilities, FloatTensor[B, K]."
        )


def _row_loss(labels: Tensor, targets: Tensor | None, soft_labels: bool) -> RowLoss:
    return RowLoss(criterion_of(labels, soft_labels), targets, soft_labels=soft_labels)
