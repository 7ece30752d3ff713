"""Pairs that meet twice, each time with more of the other: what MIT takes apart."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
from torch import Tensor

from hf_logitmix.pairing.plan import MixPlan
from hf_logitmix.pairing.random_pairs import RandomPairs

_TRIED = 100  # pairs of lams that are drawn at once


@dataclass(frozen=True)
class MutualPairs(RandomPairs):
    r"""The batch falls into random pairs, and each row has more of itself than of its partner.

    As :math:`\pi(\pi(i)) = i`, the two rows of a pair mix the same two inputs, with
    :math:`\lambda_i, \lambda_j \ge 1/2` of their own; of input i that is :math:`\lambda_1 = \lambda_i` in one and
    :math:`\lambda_2 = 1 - \lambda_j` in the other. Both are drawn, :math:`\max(u, 1 - u)` of a u from ``lam``, until
    :math:`\lambda_1 - \lambda_2 \ge m` (Wang et al., On the Pitfall of Mixup for Uncertainty Calibration, CVPR 2023,
    and their code). In a batch of odd size the last one stays what it is.

    Attributes:
        lam_margin: m, by how much the two lams of a pair differ at least, in [0, 1); their code takes 0.5.

    Raises:
        ValueError: for a margin outside of this or hardly ever kept by lam, a ``label_lam``, and partners="length".
    """

    lam_margin: float = field(default=0.5, metadata={"help": "MIT: how far apart the two lams of a pair are at least."})
    is_mutual: ClassVar[bool] = True

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.lam_margin < 1:
            raise ValueError(f"lam_margin must be in [0, 1), got {self.lam_margin}: it is a difference of two weights.")
        if self.label_lam is not None:
            raise ValueError(f"label_lam must be left out, got {self.label_lam}: each label is an example's own.")
        if self.partners != "any":
            raise ValueError(f"partners must be 'any', got {self.partners!r}: these pairs are random.")
        if not len(self._candidates(1000, torch.Generator().manual_seed(0))):
            raise ValueError(
                f"lam_margin={self.lam_margin} is hardly ever kept by two draws of lam={self.lam}: pass a smaller "
                "one, or a lam that is nearer to 0 and 1, such as Beta(0.5)."
            )

    def _draw(self, inputs: Mapping[str, Any], size: int, generator: torch.Generator) -> MixPlan:
        order, half = torch.randperm(size, generator=generator), size // 2
        partner = order.clone()
        partner[: 2 * half] = order[: 2 * half].reshape(half, 2).flip(1).flatten()
        lams = self._lams(half if self.per_example else 1, generator).expand(half, 2)
        lam = torch.cat([lams.flatten(), torch.ones(size - 2 * half)])
        place = order.argsort()
        return MixPlan(partner[place], lam[place])

    def _lams(self, count: int, generator: torch.Generator) -> Tensor:
        """Weights of the own inputs, FloatTensor[count, 2]."""
        found = self._candidates(_TRIED, generator)[:count]
        while len(found) < count:
            found = torch.cat([found, self._candidates(_TRIED, generator)])[:count]
        return found

    def _candidates(self, count: int, generator: torch.Generator) -> Tensor:
        """Those of some drawn pairs of weights that are far enough apart, FloatTensor[N, 2]."""
        drawn = self.lam.draw(2 * count, generator).reshape(count, 2)
        own = torch.maximum(drawn, 1 - drawn)
        apart = own.sum(1) - 1
        return own[(apart >= self.lam_margin) & (apart > 0)]
