"""Random pairs: partners by a permutation of the batch, lam from a distribution."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from hf_logitmix import modalities  # the module, as it imports pairings
from hf_logitmix.models import name_of
from hf_logitmix.pairing.base import Pairing, first_tensor
from hf_logitmix.pairing.distributions import Beta, Distribution, as_distribution
from hf_logitmix.pairing.plan import MixPlan
from hf_logitmix.part import LabelSpec
from hf_logitmix.step import Step

_PARTNERS = ("any", "length")
_HOLDS = {"holds_options": True}


@dataclass(frozen=True)
class RandomPairs(Pairing):
    r"""Partners are a random permutation of the batch; lam is drawn from a distribution.

    Attributes:
        lam: the weight of an example in its mixed input (Zhang et al., mixup, 2018: Beta(alpha, alpha)).
        label_lam: the weight of its label, drawn independently; None is the lam of the inputs.
        per_example: draw for each example instead of once for the batch.
        fraction: mix only this share of the batch, which makes LogitMix cost 1 + fraction vanilla steps instead of 2
            (at layer k of n, 1 + fraction (n - k) / n). Not from any paper.
        prob: the share of batches that are mixed at all (CutMix: 0.5 on 32 x 32 images, 1 on larger ones in the
            paper's code); in the others lam is 1.
        off_after: the share of training after which nothing is mixed any more (timm's ``mixup_off_epoch``).
        partners: ``any`` is the permutation. ``length`` pairs the texts of a batch that are next to one another in
            length, in an order that is random among equals; an odd one out goes with the two before it. Ours.

    Raises:
        ValueError: for an impossible lam, label_lam, fraction, prob, off_after or partners.
    """

    lam: Distribution = field(
        default_factory=Beta,
        metadata={
            "help": "Weight of the own input: uniform, half or a number, instead of Beta(alpha, alpha).",
            **_HOLDS,
        },
    )
    label_lam: Distribution | None = field(
        default=None,
        metadata={"help": "Weight of the own label: uniform, half or a number; else the input's.", **_HOLDS},
    )
    per_example: bool = field(default=False, metadata={"help": "Draw one lam for each example, not each batch."})
    fraction: float = field(
        default=1.0, metadata={"option": "mix_fraction", "help": "Share of the batch that gets a mixed row (LogitMix)."}
    )
    prob: float = field(default=1.0, metadata={"help": "Share of the batches that are mixed at all."})
    off_after: float = field(default=1.0, metadata={"help": "Share of training after which nothing is mixed."})
    partners: str = field(
        default="any", metadata={"help": "any, or length: pairs of texts that are next to one another in length."}
    )

    def __post_init__(self) -> None:
        object.__setattr__(self, "lam", as_distribution(self.lam, "lam"))
        if self.label_lam is not None:
            object.__setattr__(self, "label_lam", as_distribution(self.label_lam, "label_lam"))
        meanings = {
            "mix_fraction": (self.fraction, "the share of the batch to mix"),
            "prob": (self.prob, "the share of batches to mix"),
            "off_after": (self.off_after, "the share of training in which to mix"),
        }
        for name, (value, meaning) in meanings.items():
            if not 0 < value <= 1:
                raise ValueError(f"{name} must be in (0, 1], got {value}: it is {meaning}.")
        if self.partners not in _PARTNERS:
            raise ValueError(f"partners must be one of {', '.join(_PARTNERS)}, got {self.partners!r}.")

    def check(self, model: nn.Module, labels: LabelSpec) -> None:
        if self.partners == "length" and not modalities.modality_of(model).has_masks:
            raise ValueError(f"partners='length' is for text and {name_of(model)} reads images: pass partners='any'.")

    def __call__(self, inputs: Mapping[str, Any], labels: Tensor | None, step: Step) -> MixPlan:
        size, generator = len(first_tensor(inputs)), step.generator("plan")
        plan = self._draw(inputs, size, generator)
        if self.prob < 1 and not torch.rand(1, generator=generator) < self.prob:
            plan = plan._replace(lam=torch.ones(size), label_lam=None)
        mixed = math.ceil(self.fraction * size - 1e-9)  # 0.55 * 100 is a little over 55
        return plan.first(mixed)

    def _draw(self, inputs: Mapping[str, Any], size: int, generator: torch.Generator) -> MixPlan:
        """The plan of a whole batch that is mixed."""
        order = torch.randperm(size, generator=generator)
        partner = order if self.partners == "any" else self._next_in_length(inputs, order)
        count = size if self.per_example else 1
        lam = self.lam.draw(count, generator).expand(size).contiguous()
        if self.label_lam is None:
            return MixPlan(partner, lam)
        return MixPlan(partner, lam, self.label_lam.draw(count, generator).expand(size).contiguous())

    def _next_in_length(self, inputs: Mapping[str, Any], order: Tensor) -> Tensor:
        mask = inputs.get("attention_mask")
        if not isinstance(mask, Tensor):
            raise ValueError("partners='length' needs the `attention_mask` of a batch of text: pass partners='any'.")
        order = order.to(mask.device, non_blocking=True)
        order = order[mask.flatten(1).sum(1)[order].argsort(stable=True)]
        place = torch.arange(len(order), device=mask.device)
        beside = place + 1 - 2 * (place % 2)  # 0 with 1, 2 with 3, ...
        if len(order) % 2 and len(order) > 1:
            beside[-3:] = place[-3:].roll(-1)
        return torch.empty_like(order).scatter_(0, order, order[beside.clamp(max=len(order) - 1)])
