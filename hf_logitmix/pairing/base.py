"""What every pairing takes and gives."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from torch import Tensor

from hf_logitmix.pairing.plan import MixPlan
from hf_logitmix.part import Part
from hf_logitmix.step import Step


class Pairing(Part):
    """Who meets whom, how much of each input, and how much of each label; a new kind overrides the call.

    Attributes:
        fraction: the share of the batch that gets a mixed row; below 1 only objectives on both kinds of rows fit.
        off_after: the share of training after which steps train on clean rows alone.
        is_mutual: whether the partner of a partner is the example itself, with another lam.
    """

    fraction: float = 1.0
    off_after: float = 1.0
    is_mutual: ClassVar[bool] = False

    def is_off(self, step: Step) -> bool:
        """Whether this step mixes nothing, so that it trains on the clean rows alone."""
        return self.off_after < 1 and step.progress >= self.off_after

    def relabel(self, plan: MixPlan, labels: Tensor) -> MixPlan:
        """The plan with the lam of the labels, once that of the inputs is the true one; itself where they are one."""
        return plan

    def __call__(self, inputs: Mapping[str, Any], labels: Tensor | None, step: Step) -> MixPlan:
        """Draw the plan of one batch: on the CPU, as far as no value of the batch decides over it.

        There it can be checked without a wait for a GPU; `hf_logitmix.mixed_forward` moves it.

        Args:
            inputs: the batch without labels; its first tensor has a row an example.
            labels: of the batch, or None where the caller has none.
            step: where in training this is, and the source of what is random.
        """
        raise NotImplementedError


def first_tensor(inputs: Mapping[str, Any]) -> Tensor:
    """The tensor that tells the size and the device of a batch.

    Raises:
        ValueError: for a batch without one.
    """
    first = next((value for value in inputs.values() if isinstance(value, Tensor) and value.dim()), None)
    if first is None:
        raise ValueError(f"inputs hold no tensor, only {', '.join(inputs) or 'nothing'}: pass a batch.")
    return first
