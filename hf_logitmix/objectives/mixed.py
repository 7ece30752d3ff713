"""The loss of the mixed batch against mixed labels: Mixup, CutMix, PuzzleMix."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from hf_logitmix.criteria import RowLoss
from hf_logitmix.objectives.base import Objective, Term, Terms, clean_term
from hf_logitmix.output import MixedOutput, Rows


@dataclass(frozen=True)
class Mixed(Objective):
    """The criterion of the mixed batch, against mixed labels; see `hf_logitmix.criteria.RowLoss.mixed`."""

    equation = r"L = \lambda H(\tilde z, T_y) + (1 - \lambda) H(\tilde z, T_{y_\pi})"

    kinds = frozenset[Rows]({"mixed"})

    def __call__(self, output: MixedOutput, labels: Tensor, loss: RowLoss, inputs: Mapping[str, Any]) -> Terms:
        if output.mixed_logits is None:
            return clean_term(output, labels, loss)
        return {"mix": Term(loss.mixed(output.mixed_logits, labels, output.plan))}
