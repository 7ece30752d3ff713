"""What the log says of the steps since its last line: the terms of the loss, and the share that was clipped."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor


class StepLog:
    """Sums over optimizer steps, kept on the device until they are asked for.

    The mean of a term is taken over the steps in which it occurs. So where every step has every term, their weighted
    sum is the logged loss, however many micro-batches a step has; terms of a method that alternates between two kinds
    of steps (LaMix) are each the mean over their own kind.
    """

    def __init__(self) -> None:
        self._sums: dict[str, Tensor] = {}
        self._steps: dict[str, set[int]] = {}

    def add(self, terms: Mapping[str, Tensor], weight: Tensor | float, step: int) -> None:
        """Add the terms of one micro-batch.

        Args:
            terms: name -> scalar, a mean over the examples of the micro-batch.
            weight: the micro-batch's share of its optimizer step, such that the loss of the step is the sum of
                weight * loss.
            step: number of the optimizer step.
        """
        for name, value in terms.items():
            self._sums[name] = self._sums.get(name, torch.zeros_like(value)) + weight * value.detach()
            self._steps.setdefault(name, set()).add(step)

    def means(self) -> dict[str, Tensor]:
        """The mean of each term over the steps in which it occurred."""
        return {name: total / len(self._steps[name]) for name, total in self._sums.items()}

    def clear(self) -> None:
        """Begin anew."""
        self._sums.clear()
        self._steps.clear()
