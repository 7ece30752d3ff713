"""Mixing of pixels: pure functions of a batch of images and a plan."""

from __future__ import annotations

import torch
from torch import Tensor

from hf_logitmix.modalities.image import check_images, mixed_pixels, new_rows
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
    lam, count, (height, width) = plan.lam, len(plan.partner), pixels.shape[-2:]
    source = generator.device if generator is not None else torch.device("cpu")
    centres = torch.rand(2, count, generator=generator, device=source).to(lam.device, non_blocking=True)
    is_one_lam = (lam == lam[:1]).all()
    vertical, horizontal = torch.where(is_one_lam, centres[:, :1], centres)
    side = (1 - lam.double()).clamp(0, 1).sqrt()
    (top, bottom), (left, right) = _cut(height, side, vertical), _cut(width, side, horizontal)
    true_lam = 1 - (bottom - top) * (right - left) / (height * width)
    partner = plan.partner.to(pixels.device, non_blocking=True)
    if count and lam.device.type == "cpu" and is_one_lam and not pixels.requires_grad:
        shown = new_rows(pixels, torch.arange(count, device=pixels.device), rows)
        box = (..., slice(int(top[0]), int(bottom[0])), slice(int(left[0]), int(right[0])))
        torch.index_select(pixels[box], 0, partner, out=shown[len(shown) - count :][box])
    else:
        shown = new_rows(pixels, partner, rows)
        own = torch.maximum(_outside(top, bottom, pixels, -2), _outside(left, right, pixels, -1))
        shown[len(shown) - count :].lerp_(pixels[:count], own)
    return shown, plan._replace(lam=true_lam.to(lam.dtype))


def _cut(size: int, side: Tensor, centre: Tensor) -> tuple[Tensor, Tensor]:
    """Where a box starts and stops along an axis of ``size`` pixels, [M] each; sides and centres are shares of it."""
    length, middle = (size * side).round(), (size * centre).floor()
    return (middle - (length / 2).floor()).clamp(0, size), (middle + (length / 2).ceil()).clamp(0, size)


def _outside(start: Tensor, stop: Tensor, pixels: Tensor, axis: int) -> Tensor:
    """1 at the places of an axis that are outside start..stop, else 0, [M, 1, H, 1] or [M, 1, 1, W]."""
    at = torch.arange(pixels.shape[axis], device=start.device)
    outside = ((at < start[:, None]) | (at >= stop[:, None])).to(pixels.device, pixels.dtype, non_blocking=True)
    return outside[:, None, :, None] if axis == -2 else outside[:, None, None, :]
