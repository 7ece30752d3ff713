"""What every mixing takes and gives."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from hf_logitmix.moment import Moment
from hf_logitmix.output import MixedOutput, Rows
from hf_logitmix.plan import MixPlan


class Mixing(Protocol):
    """What a `Method` asks of its first part."""

    @property
    def mixes(self) -> bool:
        """False where nothing is mixed: then only objectives on clean rows fit."""
        ...

    @property
    def mix_fraction(self) -> float:
        """The share of the batch that gets a mixed row; below 1 only objectives on both kinds of rows fit."""
        ...

    def plan(
        self, batch_size: int, *, generator: torch.Generator | None = None, device: torch.device | str | None = None
    ) -> MixPlan:
        """Draw the plan of one batch."""
        ...

    def at(self, moment: Moment) -> Mixing:
        """The mixing that applies at this step of training: itself, unless a choice is drawn for each step."""
        ...

    def for_batch(self, labels: Tensor) -> Mixing:
        """The mixing for one batch: itself, unless it looks at the labels."""
        ...

    def check(self, model: nn.Module, rows: Rows) -> None:
        """Raise ValueError where this model cannot be mixed in this way, and warn where it would teach nothing."""
        ...

    def attached(self, model: nn.Module) -> AbstractContextManager[Any]:
        """What must be on the model all through training, before it is compiled: a block around the training loop."""
        ...

    def forward(self, model: nn.Module, inputs: Mapping[str, Any], plan: MixPlan, rows: Rows) -> MixedOutput:
        """One forward of the model that makes mixed rows, and the clean ones too if ``rows`` is ``both``."""
        ...


@dataclass(frozen=True)
class NoMixing:
    """Each example stays what it is."""

    mixes = False
    mix_fraction = 1.0

    def plan(
        self, batch_size: int, *, generator: torch.Generator | None = None, device: torch.device | str | None = None
    ) -> MixPlan:
        return MixPlan(torch.arange(batch_size, device=device), torch.ones(batch_size, device=device))

    def at(self, moment: Moment) -> NoMixing:
        return self

    def for_batch(self, labels: Tensor) -> NoMixing:
        return self

    def check(self, model: nn.Module, rows: Rows) -> None:
        """Every model will do."""

    def attached(self, model: nn.Module) -> AbstractContextManager[Any]:
        return nullcontext()

    def forward(self, model: nn.Module, inputs: Mapping[str, Any], plan: MixPlan, rows: Rows) -> MixedOutput:
        raise ValueError("mixing=NoMixing() makes no mixed rows: pass rows='clean', or a mixing such as Linear().")


def call(model: nn.Module, inputs: Mapping[str, Any], rows: int) -> Tensor:
    """The logits of a model, from whatever it returns; they must have as many rows as the batch that went in."""
    output = model(**inputs)
    logits = output if isinstance(output, Tensor) else output["logits"] if isinstance(output, Mapping) else output[0]
    if logits.dim() != 2 or len(logits) != rows:
        raise ValueError(
            f"{type(model).__name__} gave logits of shape {tuple(logits.shape)} for {rows} rows: mixing needs a model "
            "with one row of logits an example, such as AutoModelForSequenceClassification."
        )
    return logits


def split(logits: Tensor, batch_size: int, plan: MixPlan) -> MixedOutput:
    """Clean rows first, mixed rows after them."""
    return MixedOutput(logits[:batch_size], logits[batch_size:], plan)
