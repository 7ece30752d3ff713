"""Cross-entropy of the clean batch, for classes, real numbers and multi-hot labels alike."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from hf_logitmix.objectives.base import Loss, Objective, at_least_float32
from hf_logitmix.output import MixedOutput
from hf_logitmix.plan import check_range

_NOTHING_IGNORED = torch.iinfo(torch.int64).min  # as ignore_index, which would make -100 a loss of 0


def cross_entropy(logits: Tensor, labels: Tensor, targets: Tensor | None = None) -> Tensor:
    r"""The loss of each example, by the kind of its label.

    ===================== ==================== =========================================================
    labels                meaning              loss of a row
    ===================== ==================== =========================================================
    LongTensor[B]         class ids            :math:`H(z, T_y) = -\sum_k T_{yk} \log \mathrm{softmax}(z)_k`
    FloatTensor[B]        regression, K = 1    :math:`(z - y)^2`
    FloatTensor[B, K]     multi-label          binary cross-entropy, mean over the K labels
    ===================== ==================== =========================================================

    No label is left out: -100, which torch's own cross-entropy ignores, is outside 0..K-1 like any other. On a GPU,
    which is not waited for, the lookup of such a label is a device-side assert of CUDA.

    Args:
        logits: FloatTensor[B, K]; computed in float32 or better.
        labels: as in the table.
        targets: FloatTensor[K, K], the rows T, or None for one-hot. Only for class ids.

    Returns:
        FloatTensor[B].

    Raises:
        ValueError: for targets with real-valued or multi-hot labels, for shapes that do not fit, and for class ids
            outside 0..K-1 that are not on a GPU.
    """
    logits = at_least_float32(logits)
    if not labels.is_floating_point():
        if labels.dim() != 1 or len(labels) != len(logits):
            raise ValueError(
                f"class ids of shape {tuple(labels.shape)} do not fit logits of shape {tuple(logits.shape)}: pass [B] "
                "integers, or floats of shape [B, K] for multi-label."
            )
        labels, num_labels = labels.long(), logits.shape[-1]
        if not labels.is_cuda:
            check_range(labels, 0, num_labels - 1, "label", "take such examples out; none is ignored, not -100 either")
        if targets is None:
            return F.cross_entropy(logits, labels, reduction="none", ignore_index=_NOTHING_IGNORED)
        if targets.shape != (num_labels, num_labels):
            raise ValueError(f"targets of shape {tuple(targets.shape)} do not fit {num_labels} classes: pass [K, K].")
        rows = F.embedding(labels, targets.to(logits.device, logits.dtype))  # which knows no index from the end
        return -(rows * F.log_softmax(logits, dim=-1)).sum(-1)
    if targets is not None:
        raise ValueError("targets are rows for class ids: they are undefined for regression and multi-label labels.")
    labels = labels.to(logits.dtype)
    if labels.dim() == 1:
        if logits.shape != (len(labels), 1):
            raise ValueError(f"regression needs logits of shape [{len(labels)}, 1] and got {tuple(logits.shape)}.")
        return (logits.squeeze(-1) - labels).square()
    if labels.shape != logits.shape:
        raise ValueError(f"labels of shape {tuple(labels.shape)} and logits of shape {tuple(logits.shape)} differ.")
    return F.binary_cross_entropy_with_logits(logits, labels, reduction="none").mean(-1)


@dataclass(frozen=True)
class CrossEntropy(Objective):
    """Mean cross-entropy of the clean batch: ordinary training."""

    def __call__(self, output: MixedOutput, labels: Tensor, targets: Tensor | None = None) -> Loss:
        assert output.logits is not None
        return Loss(cross_entropy(output.logits, labels, targets).mean(), {})
