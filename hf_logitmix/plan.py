"""Who meets whom, and how much of each: the plan of one mixed batch."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from scipy.special import betaincinv
from torch import Tensor


class MixPlan(NamedTuple):
    """Row ``i`` of a mixed batch is ``lam[i] * example i + (1 - lam[i]) * example partner[i]``.

    Attributes:
        partner: LongTensor[M], indices into the batch of B >= M examples.
        lam: FloatTensor[M] in [0, 1], the weight of the example itself.

    A plan shorter than the batch (M < B) mixes only the first M examples.
    """

    partner: Tensor
    lam: Tensor

    def to(self, device: torch.device | str) -> MixPlan:
        """The same plan on another device."""
        return MixPlan(self.partner.to(device, non_blocking=True), self.lam.to(device, non_blocking=True))


def check_alpha(alpha: float) -> None:
    """Raise ValueError unless ``alpha`` is a positive, finite number."""
    if not (isinstance(alpha, (int, float)) and alpha > 0 and math.isfinite(alpha)):
        raise ValueError(
            f"alpha={alpha!r} is not possible: lam is drawn from Beta(alpha, alpha), so pass a positive, finite alpha."
        )


def check_range(values: Tensor, low: int, high: int, name: str, fix: str) -> None:
    """Refuse values outside low..high, NaN among them.

    On a GPU nothing waits for the answer: there it is a device-side assert of CUDA.

    Raises:
        ValueError: with ``name`` and ``fix`` in its sentence, for values that are anywhere else.
    """
    inside = values.clamp(low, high) == values
    if inside.is_cuda:
        torch._assert_async(inside.all(), f"{name} is outside {low}..{high}: {fix}.")
    elif not inside.is_meta and not inside.all():
        raise ValueError(f"{name} {values[~inside][0].item()} is outside {low}..{high}: {fix}.")


def check_plan(plan: MixPlan, batch_size: int) -> None:
    """Refuse partners outside the batch, and lam outside [0, 1]; see `check_range`.

    Raises:
        ValueError: for such a plan, and for partners that are no indices.
    """
    if plan.partner.dtype not in (torch.int64, torch.int32):
        raise ValueError(f"partner is {plan.partner.dtype}: pass indices into the batch, LongTensor[M].")
    check_range(plan.partner, 0, batch_size - 1, "partner", f"pass indices into the batch of {batch_size}")
    check_range(plan.lam, 0, 1, "lam", "pass the weight of the example itself")


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

    Lambda is drawn by inversion, :math:`\lambda = I^{-1}_{\alpha,\alpha}(u)` with :math:`u \sim U(0, 1)`, so that every
    draw takes the given generator. Without one, torch's global CPU generator is used, which the Trainer saves
    in each checkpoint.

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
    check_alpha(alpha)
    if batch_size < 0:
        raise ValueError(f"batch_size={batch_size} is negative.")
    source = generator.device if generator is not None else torch.device("cpu")
    partner = torch.randperm(batch_size, generator=generator, device=source)
    uniform = torch.rand(batch_size if per_example else 1, generator=generator, device=source, dtype=torch.float64)
    lam = torch.as_tensor(betaincinv(alpha, alpha, uniform.cpu().numpy()), dtype=torch.float32)
    return MixPlan(partner, lam.expand(batch_size).contiguous()).to(device if device is not None else source)
