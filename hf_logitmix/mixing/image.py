"""Mixing of pixels: pure functions of a batch of images and a plan."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from hf_logitmix.modalities.image import check_images, check_rows, mixed_pixels, new_rows
from hf_logitmix.output import Rows
from hf_logitmix.pairing.plan import MixPlan


def mixup(pixels: Tensor, plan: MixPlan, rows: Rows = "mixed") -> tuple[Tensor, MixPlan]:
    r"""Mixup of images, :math:`\tilde x_i = \lambda_i x_i + (1-\lambda_i) x_{\pi(i)}` (Zhang et al., 2018).

    Args:
        pixels: FloatTensor[B, C, H, W]; not changed.
        plan: of M <= B rows.
        rows: ``mixed``, or ``both`` to have the clean images before them, without another copy of either.

    Returns:
        the mixed images, FloatTensor[M, C, H, W], or [B + M, C, H, W] for ``both``, and the plan as it was.

    Raises:
        ValueError: for pixels that are no floats [B, C, H, W], and other ``rows``.
    """
    return mixed_pixels(pixels, plan, rows), plan


def cutmix(
    pixels: Tensor, plan: MixPlan, generator: torch.Generator | None = None, rows: Rows = "mixed"
) -> tuple[Tensor, MixPlan]:
    r"""CutMix: a box of the partner's pixels, of share 1 - lam, is put into each image (Yun et al., 2019).

    The box has sides :math:`H\sqrt{1-\lambda}` and :math:`W\sqrt{1-\lambda}` and a uniform centre; what hangs over the
    edge is clipped. Where all rows have the same lam they have the same box, as in the authors' code; otherwise each
    has its own.

    Args:
        pixels: FloatTensor[B, C, H, W]; not changed.
        plan: of M <= B rows. On the CPU it is looked at; on a GPU nothing waits for it.
        generator: source of the centres; on the device of the plan, or on the CPU.
        rows: ``mixed``, or ``both`` to have the clean images before them, without another copy of either.

    Returns:
        the mixed images, [M, C, H, W], or [B + M, C, H, W] for ``both``, and the plan with lam corrected to the share
        of an image's own pixels.

    Raises:
        ValueError: for pixels that are no floats [B, C, H, W], and other ``rows``.
    """
    check_images(pixels)
    check_rows(rows)
    lam, device = plan.lam, plan.lam.device
    numbers = set(lam.tolist()) if device.type == "cpu" and not pixels.requires_grad else set()
    source = generator.device if generator is not None else torch.device("cpu")
    # the first row of many is what one row alone would be
    centres = torch.rand(1 if len(numbers) == 1 else len(lam), 2, generator=generator, device=source)
    if len(numbers) == 1:
        return _cut_out(pixels, plan, numbers.pop(), centres[0].tolist(), rows)
    centres = centres.to(device, torch.float64, non_blocking=True)
    centres = torch.where((lam == lam[:1]).all(), centres[:1], centres)
    size = torch.tensor(pixels.shape[-2:]).to(device, torch.float64, non_blocking=True)
    length = (size * (1 - lam.double()).clamp(0, 1).sqrt().unsqueeze(1)).round()
    start = (size * centres).floor() - (length / 2).floor()  # [M, 2], of the rows and of the columns
    stop = torch.minimum(start + length, size)
    start = start.clamp_min(0)
    own = torch.maximum(_outside(start, stop, pixels, -2), _outside(start, stop, pixels, -1))
    shown = new_rows(pixels, plan.partner.to(pixels.device, non_blocking=True), rows)
    shown[len(shown) - len(lam) :].lerp_(pixels[: len(lam)], own)
    true_lam = 1 - (stop - start).prod(1) / size.prod()
    return shown, plan._replace(lam=true_lam.to(lam.dtype))


def _cut_out(pixels: Tensor, plan: MixPlan, lam: float, centre: list[float], rows: Rows) -> tuple[Tensor, MixPlan]:
    """CutMix with one box, whose numbers are known, so that nothing but the box itself is read or written twice."""
    box: list[slice] = []
    for size, share in zip(pixels.shape[-2:], centre, strict=True):
        length = round(size * math.sqrt(min(max(1 - lam, 0.0), 1.0)))
        start = math.floor(size * share) - length // 2
        box.append(slice(max(start, 0), min(start + length, size)))
    count, partner = len(plan.partner), plan.partner.to(pixels.device, non_blocking=True)
    place: tuple[Any, ...] = (..., *box)
    shown = torch.cat([pixels, pixels[:count]]) if rows == "both" else pixels[:count].clone()
    torch.index_select(pixels[place], 0, partner, out=shown[len(shown) - count :][place])
    true_lam = 1 - math.prod(side.stop - side.start for side in box) / math.prod(pixels.shape[-2:])
    return shown, plan._replace(lam=torch.full_like(plan.lam, true_lam))


def _outside(start: Tensor, stop: Tensor, pixels: Tensor, axis: int) -> Tensor:
    """1 at the places of an axis that are outside of start..stop, else 0, [M, 1, H, 1] or [M, 1, 1, W]."""
    at = torch.arange(pixels.shape[axis], device=start.device)
    outside = (at < start[:, axis, None]) | (at >= stop[:, axis, None])
    shape = (-1, 1, *(len(at) if axis == place else 1 for place in (-2, -1)))
    return outside.reshape(shape).to(pixels.device, pixels.dtype, non_blocking=True)
