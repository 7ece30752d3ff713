"""What one forward of a model gives."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, NamedTuple

from torch import Tensor

if TYPE_CHECKING:  # pairings import modalities, which import this
    from hf_logitmix.pairing.plan import MixPlan

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


def split(logits: Tensor, batch_size: int, plan: MixPlan) -> MixedOutput:
    """The output of a forward over clean rows and, after them, mixed ones."""
    return MixedOutput(logits[:batch_size], logits[batch_size:], plan)
