"""Switch between two mixings: timm's Mixup and CutMix."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from hf_logitmix import papers
from hf_logitmix.criteria import Criterion
from hf_logitmix.mixing.base import Mixing
from hf_logitmix.mixing.cutmix import CutMix
from hf_logitmix.mixing.linear import Linear
from hf_logitmix.output import MixedOutput, Rows
from hf_logitmix.pairing.distributions import Distribution, as_distribution
from hf_logitmix.pairing.plan import MixPlan
from hf_logitmix.part import LabelSpec
from hf_logitmix.step import Step

if TYPE_CHECKING:
    from hf_logitmix.training.training_set import TrainingSet


@dataclass(frozen=True)
class Switch(Mixing):
    """Each batch takes one of two mixings (timm's recipe of DeiT: Mixup with alpha 0.8, CutMix with alpha 1).

    Attributes:
        first: taken with probability 1 - switch_prob, with the lam of the plan.
        second: taken with probability switch_prob.
        switch_prob: 0.5 in timm.
        second_lam: what lam is drawn from for the second; None takes the plan's. Rows that the plan leaves alone, at
            lam 1, stay so.

    Raises:
        ValueError: for a switch_prob outside [0, 1].
    """

    papers = (papers.MIXUP, papers.CUTMIX, papers.DEIT)

    first: Mixing = field(
        default_factory=Linear, metadata={"help": "Switch: the mixing of the other batches.", "command_line": False}
    )
    second: Mixing = field(
        default_factory=CutMix, metadata={"help": "Switch: the mixing of switch_prob.", "command_line": False}
    )
    switch_prob: float = field(default=0.5, metadata={"help": "Switch: share of batches that take the second mixing."})
    second_lam: Distribution | None = field(
        default=None,
        metadata={"help": "Switch: lam of the second mixing: beta:ALPHA, uniform, half or a number; else the plan's."},
    )

    def __post_init__(self) -> None:
        if not 0 <= self.switch_prob <= 1:
            raise ValueError(f"switch_prob must be in [0, 1], got {self.switch_prob}.")
        if self.second_lam is not None:
            object.__setattr__(self, "second_lam", as_distribution(self.second_lam, "second_lam"))

    @property
    def reads(self) -> tuple[str, ...]:  # type: ignore[override]
        """What both of them can mix."""
        return tuple(kind for kind in self.first.reads if kind in self.second.reads)

    def choices(self, model: nn.Module) -> list[Mixing]:
        return [*self.first.choices(model), *self.second.choices(model)]

    def alternatives(self, model: nn.Module) -> list[Mixing]:
        return [*self.first.alternatives(model), *self.second.alternatives(model)]

    def check(self, model: nn.Module, labels: LabelSpec | None = None) -> None:
        super().check(model, labels)
        self.first.check(model, labels)
        self.second.check(model, labels)

    @contextmanager
    def install(self, model: nn.Module) -> Iterator[None]:
        with ExitStack() as stack:
            for mixing in (self.first, self.second):
                stack.enter_context(mixing.install(model))
            yield

    def setup(self, training_set: TrainingSet) -> Switch:
        return replace(self, first=self.first.setup(training_set), second=self.second.setup(training_set))

    def __call__(
        self,
        model: nn.Module,
        inputs: Mapping[str, Any],
        plan: MixPlan,
        rows: Rows,
        *,
        step: Step,
        labels: Tensor | None = None,
        criterion: Criterion | None = None,
    ) -> MixedOutput:
        super().check(model)
        generator = step.generator("switch")
        takes_second = bool(torch.rand(1, generator=generator) < self.switch_prob)
        if takes_second and self.second_lam is not None:
            lam = self.second_lam.draw(1, generator).to(plan.lam, non_blocking=True)
            plan = plan._replace(lam=torch.where(plan.lam == 1, plan.lam, lam))
        mixing = self.second if takes_second else self.first
        return mixing(model, inputs, plan, rows, step=step, labels=labels, criterion=criterion)
