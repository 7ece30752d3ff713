"""MIT-L: the logits of two mixes of a pair are taken apart, and each example meets its own label."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from hf_logitmix import papers
from hf_logitmix.criteria import RowLoss
from hf_logitmix.criteria.base import at_least_float32
from hf_logitmix.objectives.base import Objective, Term, Terms, clean_term
from hf_logitmix.output import MixedOutput, Rows
from hf_logitmix.ranges import check_all


def decoupled(first: Tensor, second: Tensor, lam: Tensor, second_lam: Tensor) -> tuple[Tensor, Tensor]:
    r"""The logits of two inputs from those of two of their mixes, as if logits were linear in the input.

    .. math::

        z_i = \frac{(1 - \lambda_2) \tilde z_1 - (1 - \lambda_1) \tilde z_2}{\lambda_1 - \lambda_2}, \qquad
        z_j = \frac{\lambda_1 \tilde z_2 - \lambda_2 \tilde z_1}{\lambda_1 - \lambda_2}

    Args:
        first, second: logits of the mixes with :math:`\lambda_1` and :math:`\lambda_2` of input i, FloatTensor[M, K].
        lam, second_lam: these weights, FloatTensor[M]; no two of a row may be equal.

    Returns:
        the logits of i and of j, in float32 or better.
    """
    first, second = at_least_float32(first), at_least_float32(second)
    a, b = (value.to(first).unsqueeze(-1) for value in (lam, second_lam))
    return ((1 - b) * first - (1 - a) * second) / (a - b), (a * second - b * first) / (a - b)


@dataclass(frozen=True)
class MIT(Objective):
    r"""MIT-L, mixup inference in training (Wang et al., On the Pitfall of Mixup for Uncertainty Calibration, 2023).

    The loss of each example against its own label, at the logits that `decoupled` recovers from the two mixed rows of
    its pair: labels are never mixed. It needs pairs that meet twice with two different lams,
    `hf_logitmix.pairing.MutualPairs`, and a mixing that keeps them, `hf_logitmix.mixing.Linear`.
    """

    equation = (
        r"L = H(z, T_y), \quad z = \frac{(1 - \lambda_2) \tilde z_1 - (1 - \lambda_1) \tilde z_2}{\lambda_1 - "
        r"\lambda_2}"
    )
    papers = (papers.MIT,)

    kinds = frozenset[Rows]({"mixed"})
    takes_pairs_apart: ClassVar[bool] = True

    def __call__(self, output: MixedOutput, labels: Tensor, loss: RowLoss, inputs: Mapping[str, Any]) -> Terms:
        if output.mixed_logits is None:
            return clean_term(output, labels, loss)
        mixed, (partner, lam, _) = output.mixed_logits, output.plan
        twice = partner[partner] == torch.arange(len(partner), device=partner.device)
        check_all(
            twice & (lam + lam[partner] != 1), "MIT takes apart pairs that meet twice: draw them by MutualPairs()."
        )
        own, _ = decoupled(mixed, mixed[partner], lam, 1 - lam[partner])
        return {"decoupled": Term(loss(own, labels))}
