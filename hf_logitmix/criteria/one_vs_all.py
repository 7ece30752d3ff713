"""Binary cross-entropy of classes: a sigmoid for each class in the place of one softmax."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

from torch import Tensor
from torch.nn import functional as F

from hf_logitmix import papers
from hf_logitmix.criteria.base import Criterion


@dataclass(frozen=True)
class OneVsAll(Criterion):
    r"""Binary cross-entropy of each class against all others, a sigmoid for each in the place of one softmax.

    .. math:: -\frac1K \sum_k [t_k \log \sigma(z_k) + (1-t_k) \log (1-\sigma(z_k))]

    Wightman et al., ResNet strikes back, 2021; as ``--bce-loss`` of timm's train.py. The target of a mixed row is
    :math:`\lambda T_y + (1-\lambda) T_{y_\pi}`, and so with a threshold each of its two classes counts as present.

    Attributes:
        target_threshold: t becomes 1 where it is above this, and else 0; None leaves it as it is.
        sum_classes: sum over the classes, without the :math:`1/K`.

    Raises:
        ValueError: for a threshold outside [0, 1).
    """

    papers = (papers.RESNET_STRIKES_BACK,)
    mixes_targets: ClassVar[bool] = True

    target_threshold: float | None = field(
        default=None, metadata={"help": "bce: targets above this become 1 and the others 0; else they stay as mixed."}
    )
    sum_classes: bool = field(default=False, metadata={"help": "bce: sum over the classes in the place of a mean."})

    def __post_init__(self) -> None:
        if self.target_threshold is not None and not 0 <= self.target_threshold < 1:
            raise ValueError(
                f"target_threshold={self.target_threshold} is outside [0, 1), where no target would differ from the "
                "others: pass one such as 0.2, or None."
            )

    def __call__(self, logits: Tensor, target: Tensor) -> Tensor:
        rows = target if target.is_floating_point() else F.one_hot(target, logits.shape[-1])
        rows = (rows if self.target_threshold is None else rows > self.target_threshold).to(logits.dtype)
        losses = F.binary_cross_entropy_with_logits(logits, rows, reduction="none")
        return losses.sum(-1) if self.sum_classes else losses.mean(-1)
