"""What every objective takes and gives."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

import torch
from torch import Tensor, nn

from hf_logitmix.moment import Moment
from hf_logitmix.output import MixedOutput, Rows

if TYPE_CHECKING:
    from hf_logitmix.training_set import TrainingSet


class Loss(NamedTuple):
    """The scalar to minimise, and its unweighted terms by name, for the log."""

    total: Tensor
    terms: dict[str, Tensor]


class Objective:
    """The second part of a `Method`; a new kind says which rows it needs and overrides `__call__`.

    Attributes:
        rows: which rows the forward must make: ``clean``, ``mixed`` or ``both``.
        drops_clean_rows: whether some steps train on mixed rows alone, so that every example of the batch needs one.
        needs_distributions: whether targets must be rows that sum to 1.
        needs_input_lam: whether inputs must meet at a place of their own (the mixing's ``input_lam``), not at lam.
        learned: the module that holds parameters learned along with the model, or None.
    """

    rows: ClassVar[Rows] = "clean"
    drops_clean_rows: ClassVar[bool] = False
    needs_distributions: ClassVar[bool] = False
    needs_input_lam: ClassVar[bool] = False
    learned: nn.Module | None = None

    def at(self, moment: Moment) -> Objective:
        """The objective that applies at this step of training: itself, unless it follows a schedule."""
        return self

    def for_batch(self, inputs: Mapping[str, Any]) -> Objective:
        """The objective for one batch: itself, unless it shows the inputs to another model."""
        return self

    def check(self, num_labels: int, problem_type: str) -> None:
        """Raise ValueError where the objective is undefined for this kind of head."""

    def prepare(self, training_set: TrainingSet) -> Objective:
        """The objective to train with, made before the first step."""
        return self

    def attached(self, model: nn.Module) -> AbstractContextManager[Any]:
        """What must be on the model all through training, before it is compiled: a block around the training loop."""
        return nullcontext()

    def __call__(self, output: MixedOutput, labels: Tensor, targets: Tensor | None = None) -> Loss:
        """The loss of one batch: means over its rows."""
        raise NotImplementedError


def at_least_float32(tensor: Tensor) -> Tensor:
    """Half precision becomes float32; float32 and float64 stay what they are."""
    return tensor.float() if tensor.dtype in (torch.float16, torch.bfloat16) else tensor
