"""Cross-entropy of the mixed batch against mixed labels: Mixup, CutMix, PuzzleMix."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from hf_logitmix.objectives.base import Loss, Objective, at_least_float32
from hf_logitmix.objectives.cross_entropy import cross_entropy
from hf_logitmix.output import MixedOutput, Rows
from hf_logitmix.plan import MixPlan


def mixed_cross_entropy(mixed_logits: Tensor, labels: Tensor, plan: MixPlan, targets: Tensor | None = None) -> Tensor:
    r"""The loss of each mixed row, with targets mixed as the inputs were.

    For class ids :math:`\lambda H(\tilde z, T_y) + (1-\lambda) H(\tilde z, T_{y_\pi})`, the same number as
    :math:`H(\tilde z, \lambda T_y + (1-\lambda) T_{y_\pi})`; regression and multi-label mix the label itself,
    :math:`\lambda y + (1-\lambda) y_\pi` (Zhang et al., mixup, 2018).

    Args:
        mixed_logits: FloatTensor[M, K].
        labels: of the whole batch, as in `cross_entropy`.
        plan: partner LongTensor[M] and the true lam FloatTensor[M].
        targets: FloatTensor[K, K] or None, for class ids.

    Returns:
        FloatTensor[M].
    """
    mixed_logits = at_least_float32(mixed_logits)
    lam = plan.lam.to(mixed_logits)
    own, other = labels[: len(plan.partner)], labels[plan.partner]
    if labels.is_floating_point():
        lam = lam.reshape(-1, *[1] * (labels.dim() - 1))
        return cross_entropy(mixed_logits, lam * own + (1 - lam) * other, targets)
    return lam * cross_entropy(mixed_logits, own, targets) + (1 - lam) * cross_entropy(mixed_logits, other, targets)


@dataclass(frozen=True)
class MixedCrossEntropy(Objective):
    """Mean mixed cross-entropy of the mixed batch."""

    rows: ClassVar[Rows] = "mixed"
    drops_clean_rows: ClassVar[bool] = True

    def __call__(self, output: MixedOutput, labels: Tensor, targets: Tensor | None = None) -> Loss:
        assert output.mixed_logits is not None
        mix = mixed_cross_entropy(output.mixed_logits, labels, output.plan, targets).mean()
        return Loss(mix, {"mix": mix})
