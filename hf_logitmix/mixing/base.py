"""What every mixing takes and gives."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from hf_logitmix.moment import Moment
from hf_logitmix.output import MixedOutput, Rows
from hf_logitmix.plan import MixPlan


class Mixing:
    """The first part of a `Method`; a new kind overrides `plan` and `forward`, and what else it needs.

    Attributes:
        mixes: False where nothing is mixed: then only objectives on clean rows fit.
        mix_fraction: the share of the batch that gets a mixed row; below 1 only objectives on both kinds of rows fit.
        input_lam: where inputs meet if that is not the plan's lam, for objectives that keep lam for the labels.
        labels: of the batch, if the mixing looks at them; set by `for_batch`.
    """

    mixes: bool = True
    mix_fraction: float = 1.0
    input_lam: float | None = None
    labels: Tensor | None = None

    def plan(
        self, batch_size: int, *, generator: torch.Generator | None = None, device: torch.device | str | None = None
    ) -> MixPlan:
        """Draw the plan of one batch."""
        raise NotImplementedError

    def at(self, moment: Moment) -> Mixing:
        """The mixing that applies at this step of training: itself, unless a choice is drawn for each step."""
        return self

    @property
    def where(self) -> str:
        """What tells this mixing from others of its kind, for a sentence."""
        return f"by {type(self).__name__}"

    def choices(self, model: nn.Module) -> list[Mixing]:
        """All that `at` may choose: itself, unless a place in the model is drawn for each step."""
        return [self]

    def alternatives(self, model: nn.Module) -> list[Mixing]:
        """What could be passed in its place where it does not work, the first choice first."""
        return []

    def for_batch(self, labels: Tensor) -> Mixing:
        """The mixing for one batch: itself, unless it looks at the labels."""
        return self

    def check(self, model: nn.Module, rows: Rows) -> None:
        """Raise ValueError where this model cannot be mixed in this way, and warn where it would teach nothing."""

    def attached(self, model: nn.Module) -> AbstractContextManager[Any]:
        """What must be on the model all through training, before it is compiled: a block around the training loop."""
        return nullcontext()

    def forward(self, model: nn.Module, inputs: Mapping[str, Any], plan: MixPlan, rows: Rows) -> MixedOutput:
        """One forward of the model that makes mixed rows, and the clean ones too if ``rows`` is ``both``."""
        raise NotImplementedError


@dataclass(frozen=True)
class NoMixing(Mixing):
    """Each example stays what it is."""

    mixes: ClassVar[bool] = False  # type: ignore[misc]

    def plan(
        self, batch_size: int, *, generator: torch.Generator | None = None, device: torch.device | str | None = None
    ) -> MixPlan:
        return MixPlan(torch.arange(batch_size, device=device), torch.ones(batch_size, device=device))

    def forward(self, model: nn.Module, inputs: Mapping[str, Any], plan: MixPlan, rows: Rows) -> MixedOutput:
        raise ValueError("mixing=NoMixing() makes no mixed rows: pass rows='clean', or a mixing such as Linear().")


def split(logits: Tensor, batch_size: int, plan: MixPlan) -> MixedOutput:
    """Clean rows first, mixed rows after them."""
    return MixedOutput(logits[:batch_size], logits[batch_size:], plan)
