"""Who meets whom, and how much of each: the plan of one mixed batch."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from hf_logitmix.pairing.distributions import Beta
from hf_logitmix.ranges import check_range


class MixPlan(NamedTuple):
    """Row ``i`` of a mixed batch is ``lam[i] * example i + (1 - lam[i]) * example partner[i]``.

    Attributes:
        partner: LongTensor[M], indices into the batch of B >= M examples.
        lam: FloatTensor[M] in [0, 1], the weight of the example itself in the mixed input.
        label_lam: FloatTensor[M] in [0, 1], its weight in the mixed label; None where that is lam.

    A plan shorter than the batch (M < B) mixes only the first M examples.
    """

    partner: Tensor
    lam: Tensor
    label_lam: Tensor | None = None

    @property
    def weight_of_label(self) -> Tensor:
        """FloatTensor[M], the weight of the example's own label."""
        return self.lam if self.label_lam is None else self.label_lam

    def to(self, device: torch.device | str) -> MixPlan:
        """The same plan on another device."""
        label_lam = None if self.label_lam is None else self.label_lam.to(device, non_blocking=True)
        return MixPlan(self.partner.to(device, non_blocking=True), self.lam.to(device, non_blocking=True), label_lam)

    def first(self, count: int) -> MixPlan:
        """The plan of the first ``count`` examples."""
        label_lam = None if self.label_lam is None else self.label_lam[:count]
        return MixPlan(self.partner[:count], self.lam[:count], label_lam)


def unmixed(labels: Tensor) -> MixPlan:
    """The plan in which each example of a batch stays what it is, on the CPU."""
    return MixPlan(torch.arange(len(labels)), torch.ones(len(labels)))


def check_plan(plan: MixPlan, batch_size: int) -> None:
    """Refuse partners outside the batch, and lam or label_lam outside [0, 1]; see `check_range`.

    Raises:
        ValueError: for such a plan, for partners that are no indices, and for parts of unequal length.
    """
    if plan.partner.dtype not in (torch.int64, torch.int32):
        raise ValueError(f"partner is {plan.partner.dtype}: pass indices into the batch, LongTensor[M].")
    if any(part is not None and part.shape != plan.partner.shape for part in plan):
        shapes = [None if part is None else list(part.shape) for part in plan]
        raise ValueError(
            f"a plan of partner {shapes[0]}, lam {shapes[1]} and label_lam {shapes[2]}: pass one of each a row."
        )
    check_range(plan.partner, 0, batch_size - 1, "partner", f"pass indices into the batch of {batch_size}")
    check_range(plan.lam, 0, 1, "lam", "pass the weight of the example itself")
    if plan.label_lam is not None:
        check_range(plan.label_lam, 0, 1, "label_lam", "pass the weight of the example's own label")


def sample_plan(
    batch_size: int,
    *,
    alpha: float,
    per_example: bool = False,
    generator: torch.Generator | None = None,
    device: torch.device | str | None = None,
) -> MixPlan:
    r"""Draw a random pairing and its mixing coefficients.

    .. math:: \mathrm{partner} \sim \mathrm{permutations}, \qquad \lambda \sim \mathrm{Beta}(\alpha, \alpha)

    Without a generator, torch's global CPU generator is used, which the Trainer saves in each checkpoint.

    Args:
        batch_size: B, the number of examples; 0 gives an empty plan.
        alpha: both parameters of the Beta distribution, > 0. 1 is uniform, small values give lam near 0 or 1.
        per_example: draw one lam for each example instead of one for the batch (Zhang et al., mixup, 2018, and the
            released LogitMix code draw one for the batch).
        generator: source of randomness.
        device: where the plan is put.

    Raises:
        ValueError: for alpha <= 0 or a negative batch size.
    """
    distribution = Beta(alpha)
    if batch_size < 0:
        raise ValueError(f"batch_size={batch_size} is negative.")
    source = generator.device if generator is not None else torch.device("cpu")
    partner = torch.randperm(batch_size, generator=generator, device=source)
    lam = distribution.draw(batch_size if per_example else 1, generator).expand(batch_size).contiguous()
    return MixPlan(partner, lam).to(device if device is not None else source)
