"""RegMixup: Mixup beside the clean batch, as a regularizer."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from hf_logitmix import papers
from hf_logitmix.criteria import RowLoss
from hf_logitmix.objectives.base import Objective, Term, Terms, clean_term
from hf_logitmix.output import MixedOutput, Rows


@dataclass(frozen=True)
class RegMixup(Objective):
    r"""The loss of the clean batch and, with a weight, that of the mixed one, in one forward.

    .. math:: L = L_{cls} + \eta L_{mix}

    Pinto et al., Using Mixup as a Regularizer Can Surprisingly Improve Accuracy and Out-of-Distribution Robustness,
    NeurIPS 2022; eta 1 and lam from Beta(20, 20). Their code takes the mean over 2B rows, half of this: the same up to
    the learning rate. It is LogitMix with weights (eta, 1, 0), without the similarity.

    Attributes:
        eta: weight of the mixed rows, >= 0.

    Raises:
        ValueError: for a negative eta.
    """

    equation = r"L = H(z, T_y) + \eta [\lambda H(\tilde z, T_y) + (1 - \lambda) H(\tilde z, T_{y_\pi})]"
    papers = (papers.REGMIXUP,)

    eta: float = field(default=1.0, metadata={"help": "RegMixup: weight of the mixed rows."})
    kinds = frozenset[Rows]({"both"})

    def __post_init__(self) -> None:
        if not 0 <= self.eta < math.inf:
            raise ValueError(f"eta must be a number >= 0, got {self.eta}.")

    def __call__(self, output: MixedOutput, labels: Tensor, loss: RowLoss, inputs: Mapping[str, Any]) -> Terms:
        clean = clean_term(output, labels, loss)
        if output.mixed_logits is None:
            return clean
        return {"mix": Term(loss.mixed(output.mixed_logits, labels, output.plan), self.eta), **clean}
