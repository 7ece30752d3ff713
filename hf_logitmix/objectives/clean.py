"""The loss of the clean batch: ordinary training."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from hf_logitmix.criteria import RowLoss
from hf_logitmix.objectives.base import Objective, Terms, clean_term
from hf_logitmix.output import MixedOutput


@dataclass(frozen=True)
class Clean(Objective):
    """The criterion of the clean batch: ordinary training."""

    equation = r"L = H(z, T_y)"

    def __call__(self, output: MixedOutput, labels: Tensor, loss: RowLoss, inputs: Mapping[str, Any]) -> Terms:
        return clean_term(output, labels, loss)
