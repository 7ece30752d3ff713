"""What every objective takes and gives."""

from __future__ import annotations

from typing import Literal, NamedTuple, Protocol

import torch
from torch import Tensor

from hf_logitmix.moment import Moment
from hf_logitmix.plan import MixPlan

Rows = Literal["clean", "mixed", "both"]


class MixedOutput(NamedTuple):
    """Logits of one forward, and the plan that was really used.

    Attributes:
        logits: FloatTensor[B, K] of the batch as it is, or None where the objective did not ask for it.
        mixed_logits: FloatTensor[M, K] of the mixed rows, or None.
        plan: the `MixPlan` with the true lam.
    """

    logits: Tensor | None
    mixed_logits: Tensor | None
    plan: MixPlan


class Loss(NamedTuple):
    """The scalar to minimise, and its unweighted terms by name, for the log."""

    total: Tensor
    terms: dict[str, Tensor]


class Objective(Protocol):
    """What a `Method` asks of its second part."""

    @property
    def rows(self) -> Rows:
        """Which rows the forward must make: ``clean``, ``mixed`` or ``both``."""
        ...

    @property
    def drops_clean_rows(self) -> bool:
        """Whether some steps train on mixed rows alone, so that every example of the batch needs one."""
        ...

    def at(self, moment: Moment) -> Objective:
        """The objective that applies at this step of training: itself, unless it follows a schedule."""
        ...

    def check(self, num_labels: int, problem_type: str) -> None:
        """Raise ValueError where the objective is undefined for this kind of head."""
        ...

    def __call__(self, output: MixedOutput, labels: Tensor, targets: Tensor | None = None) -> Loss:
        """The loss of one batch: means over its rows."""
        ...


def at_least_float32(tensor: Tensor) -> Tensor:
    """Half precision becomes float32; float32 and float64 stay what they are."""
    return tensor.float() if tensor.dtype in (torch.float16, torch.bfloat16) else tensor
